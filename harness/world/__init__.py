"""The closed world: namespaces and links, the machine in the middle, what answers."""

__all__ = [
    "build",
    "dns",
    "guard",
    "host",
    "host_files",
    "process",
    "rpc",
    "service_protocols",
    "services",
]
