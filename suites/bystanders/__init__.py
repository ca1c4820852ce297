"""Whoever was there before: the host, br0, ns1, ns2 and the operator's own firewall."""
