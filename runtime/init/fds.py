"""File descriptors: sent over Unix sockets, and the number that must be free for a call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from runtime.errors import UnsupportedError, exhausted

MOST: Final = 253
"""Descriptors that one message can carry: SCM_MAX_FD, unix(7)."""
_CARRIES: Final = b"m"


def give(channel: int, descriptors: Sequence[int]) -> None:
    """Send descriptors over a Unix socket."""
    import socket  # already imported by a process that inherited the channel

    with socket.socket(fileno=os.dup(channel)) as opened:
        for start in range(0, len(descriptors), MOST):
            socket.send_fds(opened, [_CARRIES], descriptors[start : start + MOST])


def take(channel: int) -> tuple[bytes, list[int]]:
    """Receive the next byte and the descriptors that come with it, if any.

    The descriptors get the lowest free numbers. Without a byte the other end is closed.
    """
    import socket

    with socket.socket(fileno=os.dup(channel)) as opened:
        try:
            word, found, flags, _ = socket.recv_fds(opened, 1, MOST, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return b"", []
    if flags & socket.MSG_CTRUNC:
        raise UnsupportedError(
            "take what is handed over",
            "there are more descriptors than a process may have here",
            remedy="ulimit -n",
        )
    return word, found


def take_until(channel: int, last: bytes) -> list[int] | None:
    """Receive descriptors until the byte `last`; `None` if the other end closes before."""
    taken: list[int] = []
    while True:
        word, found = take(channel)
        if word in (b"", last):
            return taken if word else None
        taken += found


REQUIRED: Final = 32
"""More than any call has open at a time, except for a container's published ports."""


def require_free(asked: str) -> None:
    """Raise `ExhaustedError` if fewer than `REQUIRED` descriptors are free.

    A call that changes something fails before its first step then, and not in the middle of
    cleaning up after a failure.
    """
    if 0 < _count_open() <= os.sysconf("SC_OPEN_MAX") - REQUIRED:
        return
    opened: list[int] = []  # or some of the open descriptors have numbers above the limit
    try:
        opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        opened.extend(os.dup(opened[0]) for _ in range(REQUIRED - 1))
    except OSError as error:
        raise exhausted(asked, error) from error
    finally:
        for fd in opened:
            os.close(fd)


def _count_open() -> int:
    """Return the number of open descriptors; 0 where the kernel does not report it (before 6.2)."""
    try:
        return os.stat("/proc/self/fd").st_size
    except OSError:
        return 0
