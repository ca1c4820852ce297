"""Deprecated: import from `harness.faults.fault`."""

from __future__ import annotations

from harness import moved

__getattr__ = moved(
    __name__,
    {
        "VERBS": "harness.faults.fault",
        "Verb": "harness.faults.fault:AdapterCall",
    },
)
