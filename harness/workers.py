"""How many tests run side by side where nobody says so."""

from __future__ import annotations

import os

from harness.adapters import registry


def usual(runtime: str | None) -> int:
    """Two for each processor with mydocker, else one.

    Half of the time the kernel is waited for: before it lets go of a link or a namespace it
    waits until nobody can be looking at it. A runtime with a daemon keeps the processors busy.
    """
    processors = len(os.sched_getaffinity(0))
    return 2 * processors if runtime in (None, registry.DEFAULT) else processors
