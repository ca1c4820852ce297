"""A container seen from outside: options, start, exec, stop, remove, logs, its networking."""

__all__ = [
    "exec",
    "files",
    "lifecycle",
    "logs",
    "networking",
    "options",
    "processes",
    "start",
    "volumes",
]
