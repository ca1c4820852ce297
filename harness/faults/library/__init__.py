"""The built-in faults, by what they break."""

__all__ = [
    "addresses",
    "bystanders",
    "dns",
    "firewall",
    "lifecycle",
    "links",
    "net_modes",
    "networks",
    "packets",
    "ports",
    "reconnect",
    "routes",
]
