"""The cgroup of a run, a child of the caller's cgroup; made and removed outside the sandbox.

Only cgroup version 2 is supported (Documentation/admin-guide/cgroup-v2.rst). Root can make a child
cgroup. An ordinary user can make one in a scope that systemd delegated. No function here raises for
lack of permission.
"""

from __future__ import annotations

import os
from pathlib import Path

_PREFIX = "netmodes-"


def own() -> Path | None:
    """Return the directory of the caller's cgroup, or `None` if there is no version 2 hierarchy."""
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
    """Make a cgroup for this process's run; return `None` if that is impossible.

    Also remove the cgroups of killed runs in the same directory. These are empty cgroups named
    after a process that no longer exists.
    """
    parent = own()
    for stale in parent.glob(f"{_PREFIX}*") if parent else ():
        if not Path("/proc", stale.name.removeprefix(_PREFIX)).exists():
            remove(stale)
    return below(f"{_PREFIX}{os.getpid()}")


def below(name: str) -> Path | None:
    """Make the cgroup `name` below the caller's cgroup; return `None` if that is impossible."""
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
    """Move the calling process into `cgroup`; return whether the kernel permits it."""
    try:
        (cgroup / "cgroup.procs").write_text("0")
    except OSError:
        return False
    return True


def remove(cgroup: Path) -> None:
    """Remove `cgroup` and all cgroups below it, except those that still have processes."""
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
