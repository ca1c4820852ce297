"""Pure data and rules: plans, matrix, dialects, requirements, the oracle. No I/O, no imports but the standard library and msgspec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import moved

if not TYPE_CHECKING:
    __getattr__ = moved(
        __name__,
        dict.fromkeys(
            (
                *("Attached", "Bridge", "Host", "Joined", "Mode", "Nothing"),
                *("ContainerSpec", "NetworkSpec", "Plan", "Publish"),
            ),
            "harness.model.plan",
        ),
    )
