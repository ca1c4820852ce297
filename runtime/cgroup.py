"""A cgroup per container where the machine has a writable cgroup v2; none elsewhere."""

from __future__ import annotations

import os


def mount_point() -> str | None:
    """Where cgroup v2 is mounted; `None` where it is not."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup2 "):
                return before.split()[4]
    return None


def create(parent: str | None, identity: str) -> int | None:
    """Make a cgroup below `parent`; its cgroup.procs, opened for writing.

    `None` where there is none to be had: an ordinary user's machine, cgroup v1.
    """
    if parent is None:
        return None
    path = f"{parent}/mydocker/{identity}"
    try:
        os.makedirs(path)
        return os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return None


def enter(parent: str | None, identity: str) -> None:
    """Move the caller into a container's cgroup, where it has one."""
    try:
        with open(f"{parent}/mydocker/{identity}/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")
    except OSError:
        return


def remove(parent: str | None, identity: str) -> None:
    """Remove a container's cgroup; its processes are gone by then."""
    if parent is None:
        return
    for path in (f"{parent}/mydocker/{identity}", f"{parent}/mydocker"):
        try:
            os.rmdir(path)
        except OSError:
            return  # never made, or (the parent) other containers are in it
