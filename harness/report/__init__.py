"""The report of a run, its gate and its files. No pytest hooks."""

__all__ = [
    "build",
    "compare",
    "expectations",
    "failure_links",
    "findings",
    "merge",
    "recorder",
    "sanitize",
    "schema",
    "store",
]
