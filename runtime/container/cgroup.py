"""Resource limits and pause of containers by cgroups.

Version 2 is used, or version 1 if the host has no other. A container gets a cgroup only if an
option needs one, because moving a process into one costs milliseconds.

The cgroup is created in the caller's cgroup, in that cgroup's parent or at the top: the first of
these in which the kernel allows it. Every directory is recorded before it is created. If this
process is killed, the next mydocker call can therefore remove the directory
(Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from linux import proc
from runtime.errors import UnsupportedError
from runtime.store import read_json, write_json

_PERIOD: Final = 100_000
"""Period over which CPU time is counted, in microseconds, as with Docker."""
_BOUND: Final = 10.0
"""Bound on freezing a cgroup, and on the report that it is empty, in seconds."""


class Limits(NamedTuple):
    """Resource limits of a container; 0 is no limit.

    `memory` is in bytes, `cpus` in billionths of a CPU.
    """

    memory: int = 0
    cpus: int = 0
    pids: int = 0

    def settings(self, version: int) -> dict[str, dict[str, str]]:
        """Return the values to write, by controller and file, for the needed controllers."""
        found: dict[str, dict[str, str]] = {}
        quota = str(self.cpus * _PERIOD // 1_000_000_000)
        if self.memory and version == 2:
            found["memory"] = {"memory.max": str(self.memory), "memory.swap.max": str(self.memory)}
        elif self.memory:
            found["memory"] = {
                "memory.limit_in_bytes": str(self.memory),
                "memory.memsw.limit_in_bytes": str(2 * self.memory),
            }
        if self.cpus and version == 2:
            found["cpu"] = {"cpu.max": f"{quota} {_PERIOD}"}
        elif self.cpus:
            found["cpu"] = {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": quota}
        if self.pids:
            found["pids"] = {"pids.max": str(self.pids)}
        return found


_OPTIONAL: Final = ("memory.swap.max", "memory.memsw.limit_in_bytes")
"""Files of kernels that account for swap."""


class Hierarchy(NamedTuple):
    """Mounted cgroup hierarchy: its top, version and controllers, and the caller's cgroup in it."""

    top: str
    version: int
    controllers: frozenset[str]
    own: str

    @property
    def parents(self) -> list[str]:
        """Directories in which a cgroup could be created, the caller's own cgroup first."""
        own = f"{self.top}/{self.own.strip('/')}".rstrip("/")
        paths = [own, os.path.dirname(own) if own != self.top else own, self.top]
        return [path for path in dict.fromkeys(paths) if os.path.isdir(path)]


def hierarchies() -> list[Hierarchy]:
    """Return every hierarchy that is mounted here, version 2 first: cgroups(7)."""
    own = {}
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    found = []
    for line in _lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        top, (kind, _, options) = left.split()[4], right.split()[:3]
        if kind == "cgroup2":
            names = _lines(f"{top}/cgroup.controllers")
            has = {"freezer", *(names[0].split() if names else ())}
            found.append(Hierarchy(top, 2, frozenset(has), own.get("", "/")))
        elif kind == "cgroup":
            has = set(options.split(",")) & {name for key in own for name in key.split(",")}
            path = next((path for key, path in own.items() if has & set(key.split(","))), "/")
            found.append(Hierarchy(top, 1, frozenset(has), path))
    return sorted(found, key=lambda item: -item.version)


class Cgroups:
    """Cgroups of the container with the state directory `directory`.

    Hold the container's lock around each call.
    """

    def __init__(self, directory: str, identity: str) -> None:
        self._record = f"{directory}/cgroups"
        self._name = f"mydocker-{identity[:12]}"

    def limit(self, limits: Limits, pid: int) -> None:
        """Move a process that has no children yet into a cgroup with the limits.

        Raise `UnsupportedError` if the host lacks a controller or does not delegate it.
        """
        for controller in ("memory", "cpu", "pids"):
            if controller in limits.settings(2):
                path, version = self._make(controller, "limit the container")
                for file, value in limits.settings(version)[controller].items():
                    if file not in _OPTIONAL or os.path.exists(f"{path}/{file}"):
                        proc.overwrite(f"{path}/{file}", value.encode())
                proc.overwrite(f"{path}/cgroup.procs", b"%d" % pid)

    def freeze(self, pid: int) -> None:
        """Freeze all processes of the container with pid 1 `pid`, until `thaw`."""
        from runtime.container import processes

        path, version = self._make("freezer", "pause the container")
        proc.overwrite(f"{path}/{_SWITCH[version]}", b"1" if version == 2 else b"FROZEN")
        moved: set[int] = set()
        # Members are frozen and cannot fork. The next round moves processes not yet in the cgroup.
        while new := set(processes.of(pid)) - moved:
            for one in new:
                with suppress(ProcessLookupError):
                    proc.overwrite(f"{path}/cgroup.procs", b"%d" % one)
            moved |= new
        for _ in _until("freeze the container"):
            if _frozen(path, version):
                return

    def thaw(self) -> None:
        """Thaw the processes of the container."""
        for path in self._paths():
            for version, file in _SWITCH.items():
                if os.path.exists(f"{path}/{file}"):
                    proc.overwrite(f"{path}/{file}", b"0" if version == 2 else b"THAWED")

    def remove(self) -> None:
        """Remove the cgroups once they are empty; do nothing if there are none."""
        for path in self._paths():
            for _ in _until("remove the container's cgroup"):
                try:
                    os.rmdir(path)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno == errno.EBUSY:
                        continue  # the last process is still exiting
                    raise
                break
        with suppress(FileNotFoundError):
            os.unlink(self._record)

    def _paths(self) -> list[str]:
        try:
            found: list[str] = read_json(self._record)
        except FileNotFoundError:
            return []
        return found

    def _make(self, controller: str, asked: str) -> tuple[str, int]:
        """Create a cgroup with that controller; return its path and its hierarchy's version."""
        happened = f"no cgroup hierarchy with the controller {controller!r} is mounted"
        for hierarchy in hierarchies():
            if controller not in hierarchy.controllers:
                continue
            for parent in hierarchy.parents:
                path = f"{parent}/{self._name}"
                known = self._paths()
                if path not in known:
                    write_json(self._record, [*known, path])
                try:
                    if hierarchy.version == 2 and controller != "freezer":
                        _delegate(parent, controller)
                    os.makedirs(path, exist_ok=True)
                    os.close(os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
                except OSError as error:
                    happened = (
                        f"the cgroup controller {controller!r} is not writable: {error.strerror}"
                    )
                    if not os.path.isdir(path):
                        write_json(self._record, known)
                else:
                    return path, hierarchy.version
        raise UnsupportedError(
            asked,
            happened,
            "only the host's root may write cgroups, or a user in a systemd unit with Delegate=yes",
            "systemd-run --user --scope -p Delegate=yes …, or leave the option out",
        )


_SWITCH: Final = {2: "cgroup.freeze", 1: "freezer.state"}


def _frozen(path: str, version: int) -> bool:
    if version == 2:
        return "frozen 1" in _lines(f"{path}/cgroup.events")
    return _lines(f"{path}/freezer.state") == ["FROZEN"]


def _delegate(parent: str, controller: str) -> None:
    if controller not in " ".join(_lines(f"{parent}/cgroup.subtree_control")).split():
        proc.overwrite(f"{parent}/cgroup.subtree_control", f"+{controller}".encode())


def _until(what: str) -> Iterator[None]:
    """Yield until the timeout is over, then raise `UnsupportedError`."""
    deadline = time.monotonic() + _BOUND
    while time.monotonic() < deadline:
        yield
        os.sched_yield()
    raise UnsupportedError(what, f"the kernel did not finish within {_BOUND:.0f} s")


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []
