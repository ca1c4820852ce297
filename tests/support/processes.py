"""Processes and what they hold, looked at through /proc: a test sees its own family only."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path


def family() -> set[int]:
    """This process and all its descendants, whatever namespaces they are in."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has gone, or is going
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(name))
    found, new = set(), {os.getpid()}
    while new:
        found |= new
        new = {child for parent in new for child in children.get(parent, [])}
    return found


def descriptors() -> set[str]:
    """Those of this process, the one by which they are listed included."""
    return set(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def nothing_stays_open() -> Iterator[None]:
    """The body leaves no descriptor open, and closes none that was."""
    gc.collect()  # or what earlier tests have left to it is closed meanwhile
    before = descriptors()
    yield
    assert descriptors() == before


def network_namespaces() -> set[str]:
    """Every network namespace that somebody of the family is in or has open."""
    found = set()
    for pid in family():
        folder = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):
            for link in (folder / "ns" / "net", *(folder / "fd").iterdir()):
                with contextlib.suppress(FileNotFoundError):  # what was needed for looking
                    found.add(os.readlink(link))
    return {link for link in found if link.startswith("net:")}
