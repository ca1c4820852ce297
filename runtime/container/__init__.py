"""Containers from the caller's side: options, life cycle, exec, logs and networking."""

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
