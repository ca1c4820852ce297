"""Networks of the host: bridge and macvlan drivers, IPAM, firewall and published ports.

This package does not know the life cycle of containers.
"""

__all__ = ["bridge", "config", "endpoint", "etc_files", "ipam", "manager", "ports", "sysctl"]
