"""The closed world of a test: its network namespaces, the links between them, and its services.

The namespace `host`, in which the runtime runs, is in the middle.
"""

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
