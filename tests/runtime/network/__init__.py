"""Tests of runtime/network: bridges, addresses, published ports and /etc files."""
