"""Data model of the harness and the rules of the oracle: no module here does I/O."""

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
