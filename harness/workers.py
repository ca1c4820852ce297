"""How many tests run side by side where nobody says so."""

from __future__ import annotations

import os

from harness.adapters import registry


def usual(runtime: str | None) -> int | None:
    """Two for each processor with mydocker; `None` where there is no reason for more than one.

    Half of the time the kernel is waited for: before it lets go of a link or a namespace it
    waits until nobody can be looking at it. A runtime with a daemon keeps the processors busy.
    """
    if runtime not in (None, registry.DEFAULT):
        return None
    return 2 * len(os.sched_getaffinity(0))
