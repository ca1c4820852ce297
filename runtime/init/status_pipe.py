"""Messages between a caller and the processes that it forks.

A process reports to its parent by a pipe until it executes the command. A line of JSON has a pid,
numbers of descriptors, or an error in words. The exec closes the pipe: an end without an error
means that the command is being executed. Descriptors are sent over Unix sockets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Final

from runtime import errors
from runtime.errors import MydockerError, UnsupportedError, refused


def send_error(fd: int, error: BaseException) -> None:
    """Report an error."""
    if isinstance(error, OSError):
        error = refused("start the container", error)
    elif not isinstance(error, MydockerError):
        error = UnsupportedError("start the container", f"{type(error).__name__}: {error}")
    os.write(fd, json.dumps({"error": [type(error).__name__, *error.args]}).encode() + b"\n")


def send_pid(fd: int, pid: int) -> None:
    """Report the pid of a child, as numbered in the reader's pid namespace."""
    os.write(fd, b'{"pid": %d}\n' % pid)


def send_held(fd: int, numbers: Sequence[int]) -> None:
    """Report the numbers of the descriptors that pid 1 keeps open."""
    os.write(fd, json.dumps({"held": list(numbers)}).encode() + b"\n")


class InitReport:
    """Read end of the pipe; `held` has the reported descriptors once the pipe has ended."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.held: list[int] = []
        self._buffer = b""
        self._pid = 0

    def _next(self) -> dict[str, Any] | None:
        while b"\n" not in self._buffer:
            data = os.read(self._fd, 4096)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _handle(self, message: dict[str, Any]) -> None:
        if "error" in message:
            kind, *args = message["error"]
            raise getattr(errors, kind)(*args)
        self._pid = message.get("pid", self._pid)
        self.held = message.get("held", self.held)

    def pid(self) -> int:
        """Wait for the pid of the container's pid 1."""
        while not self._pid:
            message = self._next()
            if message is None:
                raise UnsupportedError("start the container", "its pid 1 died at once")
            self._handle(message)
        return self._pid

    def end(self) -> None:
        """Wait until the command is being executed; raise the reported error, if any."""
        while (message := self._next()) is not None:
            self._handle(message)

    def pid_or_zero(self) -> int:
        """Return the pid, or 0 if none was reported; ignore errors, which were raised before."""
        while not self._pid and (message := self._next()) is not None:
            self._pid = message.get("pid", 0)
        return self._pid


MAX_DESCRIPTORS: Final = 253
"""Descriptors that one message can carry: SCM_MAX_FD, unix(7)."""
_CARRIES: Final = b"m"


def send_descriptors(channel: int, descriptors: Sequence[int]) -> None:
    """Send descriptors over a Unix socket."""
    import socket  # already imported by a process that inherited the channel

    with socket.socket(fileno=os.dup(channel)) as opened:
        for start in range(0, len(descriptors), MAX_DESCRIPTORS):
            socket.send_fds(opened, [_CARRIES], descriptors[start : start + MAX_DESCRIPTORS])


def receive_descriptors(channel: int) -> tuple[bytes, list[int]]:
    """Receive the next byte and the descriptors that come with it, if any.

    The descriptors get the lowest free numbers. If no byte comes, the other end is closed.
    """
    import socket

    with socket.socket(fileno=os.dup(channel)) as opened:
        try:
            word, found, flags, _ = socket.recv_fds(
                opened, 1, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return b"", []
    if flags & socket.MSG_CTRUNC:
        raise UnsupportedError(
            "receive file descriptors",
            "the process has reached its limit of open files",
            remedy="`ulimit -n` with a higher number",
        )
    return word, found


def receive_descriptors_until(channel: int, last: bytes) -> list[int] | None:
    """Receive descriptors until the byte `last`; `None` if the other end closes before."""
    taken: list[int] = []
    while True:
        word, found = receive_descriptors(channel)
        if word in (b"", last):
            return taken if word else None
        taken += found
