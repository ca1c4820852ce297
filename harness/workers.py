"""How many tests run side by side where nobody says so."""

from __future__ import annotations

import os


def usual() -> int:
    """Two for each processor.

    Half of the time the kernel is waited for: before it lets go of a link, a namespace or a rule it
    waits until nobody can be looking at it. So it is with every runtime, be it that its daemons
    are there twice as often then.
    """
    return 2 * len(os.sched_getaffinity(0))
