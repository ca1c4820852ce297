"""Networks of the host: bridge, macvlan, IPAM, firewall, ports. Knows no container lifecycle."""

__all__ = ["bridge", "config", "endpoint", "etc_files", "ipam", "manager", "ports", "sysctl"]
