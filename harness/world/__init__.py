"""The closed world: namespaces and links, the host in the middle, and the services that reply."""

__all__ = [
    "build",
    "dns",
    "host",
    "host_files",
    "leak_guard",
    "process",
    "rpc",
    "service_protocols",
    "services",
]
