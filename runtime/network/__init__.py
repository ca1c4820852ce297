"""Networks of the host: bridge, macvlan, IPAM, firewall, ports. Knows no container lifecycle."""
