"""The closed world: namespaces and links, the host in the middle, and the services that reply."""

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
