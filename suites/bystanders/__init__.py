"""Suites about the host, br0, ns1, ns2 and the operator's firewall while containers run."""
