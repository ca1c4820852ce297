"""Support for the drivers: programs, daemons, rootless users, caches, logs."""

__all__ = [
    "call_log",
    "daemon",
    "image",
    "inspect_cache",
    "options",
    "program",
    "programs",
    "rootless",
    "toml_table",
]
