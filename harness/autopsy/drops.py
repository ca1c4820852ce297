"""The kernel's own reasons for dropping packets: the trace event `skb:kfree_skb` (kernel 5.17).

Needs tracefs, which only the machine's root can mount; in a user namespace there are no
reasons, and nobody complains. It is mounted inside the sandbox, out of everybody's sight,
and the events go to an instance of their own, which is removed afterwards. The event tells
no namespace and no packet: what is kept is what happened in our own thread's time while one
probe was under way.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from typing import Final, NamedTuple, Self

from harness import sandbox
from linux import syscalls

_EVENT: Final = re.compile(
    r"-(?P<pid>\d+)\s+\[\d+\].*kfree_skb:.*location=(?P<where>\S+?)(\+\S+)? reason: (?P<reason>\w+)"
)
_MARK: Final = re.compile(r"-(?P<pid>\d+)\s+\[\d+\].*netmodes-autopsy")
_INSTANCE: Final = "netmodes-autopsy-"
_MARKER: Final = "netmodes-autopsy"
ORDINARY: Final = frozenset(
    {
        "NOT_SPECIFIED",
        "CONSUMED",
        "NO_SOCKET",
        "SOCKET_CLOSE",
        "SOCKET_FILTER",
        "SOCKET_RCVBUFF",
        "OTHERHOST",
        "UNHANDLED_PROTO",
        "NEIGH_FAILED",
        "QUEUE_PURGE",
        "UNICAST_IN_L2_MULTICAST",
    }
)
"""Reasons that come by all the time, or that `causes` tells better."""


class Drop(NamedTuple):
    """One packet that the kernel threw away: why, and in which function."""

    reason: str
    where: str

    def __str__(self) -> str:
        return f"{self.reason} in {self.where}"


class Drops:
    """Listens to the kernel's reasons. Use it as a context manager, or `close` it.

    Where they cannot be had it hears nothing; `heard` tells which it is.
    """

    def __init__(self) -> None:
        self._name = f"{_INSTANCE}{os.getpid()}-{threading.get_native_id()}"
        self._root = self._pipe = -1
        self.heard = False
        """Whether reasons can be had."""
        if not sandbox.inside():
            return
        try:
            self._open()
            self.heard = True
        except (OSError, ValueError):
            self.close()

    def _open(self) -> None:
        self._root = _tracefs()
        self._remove_stale()
        os.mkdir(f"instances/{self._name}", dir_fd=self._root)
        self._write("buffer_size_kb", "128")
        self._pipe = self._file("trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        self._write("trace_marker", _MARKER)
        found = _MARK.search(self._read())
        if not found:
            raise ValueError("the mark did not come back")
        self._write("set_event_pid", found["pid"])
        self._write("events/skb/kfree_skb/enable", "1")

    def _remove_stale(self) -> None:
        """Remove what a run that was killed has left; one in use cannot be removed."""
        opened = os.open(
            "instances", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root
        )
        try:
            for name in os.listdir(opened):
                if name.startswith(_INSTANCE):
                    with contextlib.suppress(OSError):
                        os.rmdir(name, dir_fd=opened)
        finally:
            os.close(opened)

    def _file(self, name: str, flags: int) -> int:
        path = f"instances/{self._name}/{name}"
        return os.open(path, flags | os.O_CLOEXEC, dir_fd=self._root)

    def _write(self, name: str, value: str) -> None:
        opened = self._file(name, os.O_WRONLY)
        try:
            os.write(opened, value.encode())
        finally:
            os.close(opened)

    def _read(self) -> str:
        read = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._pipe, 1 << 16):
                read += more
        return read.decode(errors="replace")

    def reasons(self) -> list[Drop]:
        """What was dropped since the last time, each reason and function once, in order."""
        if not self.heard:
            return []
        found = [
            Drop(match["reason"], match["where"])
            for match in _EVENT.finditer(self._read())
            if match["reason"] not in ORDINARY
        ]
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Stop listening, and take the instance away."""
        if self._pipe >= 0:
            with contextlib.suppress(OSError):
                self._write("events/skb/kfree_skb/enable", "0")
            os.close(self._pipe)
        if self._root >= 0:
            with contextlib.suppress(OSError):
                os.rmdir(f"instances/{self._name}", dir_fd=self._root)
            os.close(self._root)
        self._root = self._pipe = -1
        self.heard = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tracefs() -> int:
    """Tracefs as a directory that nobody else can find; `OSError` where it is not to be had."""
    with tempfile.TemporaryDirectory(dir="/run", prefix="netmodes-tracefs-") as place:
        syscalls.mount("tracefs", place, "tracefs", syscalls.MS_NOSUID | syscalls.MS_NODEV)
        try:
            return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            syscalls.umount(place)
