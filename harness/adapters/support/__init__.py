"""Parts that several adapters share: programs, daemons, rootless users, caches and logs."""

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
