"""State that exists before the runtime: the host, br0, ns1, ns2 and the operator's firewall."""
