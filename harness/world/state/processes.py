"""Mounts, cgroups, processes and namespace descriptors that a runtime may leave in the host."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from harness.world.state.describe import Thing
from linux.proc import ProcessStat

_NAMESPACE: Final = re.compile(r"(cgroup|ipc|mnt|net|pid|time|user|uts):\[\d+\]")
_MOUNT_FIELDS: Final = 6
"""Fields of mountinfo before the optional ones: proc_pid_mountinfo(5)."""

_PF_EXITING: Final = 0x4
_KILL: Final = 1 << (signal.SIGKILL - 1)

DESCRIPTOR: Final = "descriptor of "
"""Prefix of the name of a held namespace."""


class HeldNamespace(NamedTuple):
    """A descriptor of a namespace that a process holds open."""

    pid: int
    namespace: str


class HostState(NamedTuple):
    """Mounts, cgroups, processes and held namespaces of the host, at one moment."""

    mounts: tuple[str, ...] = ()
    """Lines of the host's mountinfo: proc_pid_mountinfo(5)."""
    cgroups: frozenset[str] = frozenset()
    processes: frozenset[int] = frozenset()
    held: tuple[HeldNamespace, ...] = ()


@dataclass(slots=True)
class Surroundings:
    """Reader of a host's mounts, cgroups and processes.

    `init` is the pid of the host's init, `cgroup` the directory of the host's cgroup.
    """

    init: int
    cgroup: Path | None = None
    _names: dict[int, str] = field(default_factory=dict)

    def take(self) -> HostState:
        """Return the current state of the host."""
        with open(f"/proc/{self.init}/mountinfo", encoding="utf-8", errors="replace") as file:
            mounts = tuple(file)
        below = () if self.cgroup is None else (path for path, _, _ in os.walk(self.cgroup))
        processes = self._processes()
        return HostState(mounts, frozenset(below), processes, tuple(self._held(processes)))

    def staying(self, seen: HostState) -> HostState:
        """Return the state `seen` without processes that are ending now."""
        stay = frozenset(pid for pid in seen.processes if not ends(f"{self._proc}/{pid}"))
        return seen._replace(
            processes=stay, held=tuple(item for item in seen.held if item.pid in stay)
        )

    @property
    def _proc(self) -> str:
        return f"/proc/{self.init}/root/proc"

    def _processes(self) -> frozenset[int]:
        found = running(self._proc, self._names)
        self._names |= found
        return frozenset(found)

    def _held(self, processes: frozenset[int]) -> Iterator[HeldNamespace]:
        for pid in sorted(processes):
            with contextlib.suppress(OSError):  # the process has ended
                # Read the links relative to their directory: full paths take half as long again.
                directory = os.open(f"{self._proc}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    yield from (HeldNamespace(pid, target) for target in _namespaces(directory))
                finally:
                    os.close(directory)

    def things(self, seen: HostState) -> Iterator[Thing]:
        """Yield name and facts of each object of a state."""
        for line in seen.mounts:
            fields, _, tail = line.partition(" - ")
            _, _, _, root, where, options, *_ = fields.split(" ", _MOUNT_FIELDS)
            kind, source, _ = tail.split(" ", 2)
            known = {"root": root, "options": options, "source": source}
            yield f"mount {kind} on {where}", known
        for path in seen.cgroups:
            yield f"cgroup {os.path.relpath(path, self.cgroup)}", {}
        for pid in sorted(seen.processes):
            yield f"process {self._called(pid)}", {}
        for held in seen.held:
            yield f"{DESCRIPTOR}{held.namespace} in process {self._called(held.pid)}", {}

    def _called(self, pid: int) -> str:
        return f"{pid} ({self._names[pid]})"


def running(proc: str, known: Mapping[int, str]) -> dict[int, str]:
    """Return the name of each process by its pid, read from the directory `proc` (proc(5)).

    A process keeps the name that `known` has for it. A process that ends during the read is left
    out.
    """
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir(proc))):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[pid] = known.get(pid) or _name(f"{proc}/{pid}")
    return found


def ends(process: str) -> bool:
    """Return whether a process has ended, is exiting or has a pending SIGKILL.

    `process` is its directory in proc(5).
    """
    try:
        found = ProcessStat.of(process)
    except OSError:  # the process is gone
        return True
    return found.ended or bool(found.flags & _PF_EXITING or found.pending & _KILL)


def _namespaces(directory: int) -> Iterator[str]:
    """Yield the namespaces that a process holds open; `directory` is its open `fd` directory."""
    for number in os.listdir(directory):
        with contextlib.suppress(OSError):  # closed meanwhile
            target = os.readlink(number, dir_fd=directory)
            if _NAMESPACE.fullmatch(target):
                yield target


def _name(process: str) -> str:
    """Return the name of a process; `process` is its directory in proc(5).

    A process that has executed /proc/self/exe gets the first word of its command line as its name.
    """
    with open(f"{process}/comm", "rb") as file:
        name = file.read().decode(errors="replace").strip()
    if name == "exe":
        with open(f"{process}/cmdline", "rb") as file:
            first = file.read().split(b"\0")[0].decode(errors="replace")
        name = first.rpartition("/")[2] or name
    return name
