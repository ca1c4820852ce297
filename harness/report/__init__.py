"""The report of a run, the gate that checks it, and the files written from it. No pytest hooks."""

__all__ = [
    "build",
    "compare",
    "expectations",
    "failure_links",
    "findings",
    "judge",
    "merge",
    "recorder",
    "renamed_tests",
    "sanitize",
    "schema",
    "store",
    "upstream",
]
