"""Tests of mydocker on the kernel of the host that runs them."""
