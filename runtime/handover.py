"""Descriptors that one process hands to another, over a Unix socket."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from runtime.errors import UnsupportedError

MOST: Final = 253
"""How many one message can carry: SCM_MAX_FD, unix(7)."""
_CARRIES: Final = b"m"


def give(channel: int, descriptors: Sequence[int]) -> None:
    """Hand them to whoever holds the other end."""
    import socket  # already there in whoever inherited the channel: no import after a fork

    with socket.socket(fileno=os.dup(channel)) as opened:
        for start in range(0, len(descriptors), MOST):
            socket.send_fds(opened, [_CARRIES], descriptors[start : start + MOST])


def take(channel: int) -> tuple[bytes, list[int]]:
    """The next byte from there, and the descriptors that it carries, if it does.

    They have the lowest numbers that are free. No byte: the other end is closed.
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
    """All descriptors that come before a last byte, or `None` when that never comes."""
    taken: list[int] = []
    while True:
        word, found = take(channel)
        if word in (b"", last):
            return taken if word else None
        taken += found
