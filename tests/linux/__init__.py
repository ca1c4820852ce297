"""Tests of `linux`: requests are read back through pyroute2 and seen in packets."""
