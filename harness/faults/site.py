"""Deprecated: import from `harness.faults.target`."""

from __future__ import annotations

from harness import moved

__getattr__ = moved(
    __name__,
    {
        "Plug": "harness.faults.target:FaultLink",
        "Site": "harness.faults.target:FaultContext",
    },
)
