"""Plans, matrices, dialects, requirements and the oracle: pure data and rules, without I/O."""

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

__all__ = [
    "dialect",
    "features",
    "matrix",
    "oracle",
    "plan",
    "plan_file",
    "requirements",
    "topology",
]
