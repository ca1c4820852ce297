"""A test's own processes and their file descriptors, as read from /proc."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path


def family() -> set[int]:
    """Return the calling process and all its descendants, in any namespace."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # the process has ended, or is ending
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(name))
    found, new = set(), {os.getpid()}
    while new:
        found |= new
        new = {child for parent in new for child in children.get(parent, [])}
    return found


def descriptors() -> set[str]:
    """Return the file descriptors of this process.

    The one that lists them is included.
    """
    return set(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def nothing_stays_open() -> Iterator[None]:
    """Check that the body leaves no file descriptor open, and closes none that was open before."""
    gc.collect()  # or descriptors left by earlier tests are closed meanwhile
    before = descriptors()
    yield
    assert descriptors() == before


def network_namespaces() -> set[str]:
    """Return each network namespace in which a process of `family` is, or which it has open."""
    found = set()
    for pid in family():
        folder = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):
            for link in (folder / "ns" / "net", *(folder / "fd").iterdir()):
                with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
                    found.add(os.readlink(link))
    return {link for link in found if link.startswith("net:")}
