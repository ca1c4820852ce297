"""Abstract Unix sockets: they belong to a network namespace, not to a file system (unix(7)).

So whoever shares the host's network namespace can connect to every daemon that
listens on one.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Final, NamedTuple

from harness.place import Place
from harness.probe.remote import by_kernel

BOUND: Final = 3.0
"""Seconds that a connect may wait for room in the listener's queue."""

_SO_ACCEPTCON: Final = 1 << 16
_PREFIX: Final = b" @"


class AbstractSocket(NamedTuple):
    """An abstract socket that can be connected to. `kind` is its type, as `socket.SOCK_…`.

    NUL bytes of the name show as `@`, as the kernel prints them.
    """

    name: str
    kind: int


def connectable(place: Place) -> frozenset[AbstractSocket]:
    """Every abstract socket of a place that listens, or takes datagrams (proc_net_unix)."""
    with place.open() as space, space.entered(), open("/proc/thread-self/net/unix", "rb") as table:
        rows = [line.rstrip(b"\n").partition(_PREFIX) for line in table]
    found = set()
    for columns, prefix, name in rows:
        if not prefix:
            continue
        _, _, _, flags, kind, *_ = columns.split()  # Num RefCount Protocol Flags Type St Inode
        if int(kind, 16) == socket.SOCK_DGRAM or int(flags, 16) & _SO_ACCEPTCON:
            found.add(AbstractSocket(name.decode(errors="surrogateescape"), int(kind, 16)))
    return frozenset(found)


def connects(place: Place, listener: AbstractSocket) -> bool:
    """Whether a process in a place can connect to it; `OwnStack` where it has others of its own."""
    with place.open() as space:
        by_kernel(space)
    shown = listener.name.encode(errors="surrogateescape")
    for name in {shown, shown.replace(b"@", b"\0")}:
        with place.socket(socket.AF_UNIX, listener.kind) as opened:
            opened.settimeout(BOUND)
            with contextlib.suppress(ConnectionRefusedError, PermissionError):
                opened.connect(b"\0" + name)
                return True
    return False


@contextlib.contextmanager
def listening(place: Place) -> Iterator[AbstractSocket]:
    """An abstract socket that listens in a place, under a name that the kernel chooses."""
    with place.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened:
        opened.bind("")
        opened.listen()
        name: bytes = opened.getsockname()
        yield AbstractSocket(name[1:].decode(), socket.SOCK_STREAM)
