"""A cgroup of the run's own below the caller's: made, swept and removed from outside.

Only version 2 (Documentation/admin-guide/cgroup-v2.rst). Whether a subtree can be
made depends on who owns the caller's cgroup: root may, an ordinary user may in a
scope that systemd delegated. Nothing here raises for want of permission.
"""

from __future__ import annotations

import os
from pathlib import Path

_PREFIX = "netmodes-"


def own() -> Path | None:
    """Directory of the caller's cgroup; `None` when no version 2 hierarchy shows it."""
    member = next(
        (line[3:] for line in _lines("/proc/self/cgroup") if line.startswith("0::")), None
    )
    if member is None:
        return None
    for line in _lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        if right.split()[0] == "cgroup2":
            _, _, _, root, mounted_at, *_ = left.split()
            if Path(member).is_relative_to(root):
                return Path(mounted_at, Path(member).relative_to(root))
    return None


def create() -> Path | None:
    """Make a cgroup for this process's run; `None` when there is none to be had.

    Removes what killed runs have left beside it: a cgroup named after a process
    that is gone, with nobody in it.
    """
    parent = own()
    if parent is None:
        return None
    for stale in parent.glob(f"{_PREFIX}*"):
        if not Path("/proc", stale.name.removeprefix(_PREFIX)).exists():
            remove(stale)
    made = parent / f"{_PREFIX}{os.getpid()}"
    try:
        made.mkdir()
    except OSError:
        return None
    return made


def below(name: str) -> Path | None:
    """Make a cgroup of that name below the caller's; `None` when there is none to be had."""
    parent = own()
    if parent is None:
        return None
    made = parent / name
    try:
        made.mkdir()
    except OSError:
        return None
    return made


def join(cgroup: Path) -> bool:
    """Move the calling process into `cgroup`; whether it may."""
    try:
        (cgroup / "cgroup.procs").write_text("0")
    except OSError:
        return False
    return True


def remove(cgroup: Path) -> None:
    """Remove `cgroup` and those below it; one that still has processes stays."""
    for directory, _, _ in os.walk(cgroup, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:
            return


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
