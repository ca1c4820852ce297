"""The closed world: namespaces and links, the machine in the middle, what answers."""

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
