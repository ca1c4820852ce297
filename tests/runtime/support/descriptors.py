"""A limit on the file descriptors of the test's own process."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def free_descriptors(spare: int) -> Iterator[None]:
    """Lower the limit so that `spare` more descriptors can be opened."""
    used = {int(number) for number in os.listdir("/proc/self/fd")}
    free = [number for number in range(max(used) + spare + 2) if number not in used]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[spare], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
