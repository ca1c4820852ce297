"""What a process on its way to a command tells who made it: over a pipe, line by line.

A line of JSON tells a pid, what numbers descriptors have, or what went wrong, in words. The pipe
is closed by the exec: its end without an error means that the command is being executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from runtime import errors
from runtime.errors import MydockerError, UnsupportedError, refused


def send_error(fd: int, error: BaseException) -> None:
    """Tell what went wrong."""
    if isinstance(error, OSError):
        error = refused("start the container", error)
    elif not isinstance(error, MydockerError):
        error = UnsupportedError("start the container", f"{type(error).__name__}: {error}")
    os.write(fd, json.dumps({"error": [type(error).__name__, *error.args]}).encode() + b"\n")


def send_pid(fd: int, pid: int) -> None:
    """Tell the pid of a child, as the reader's own pid namespace numbers it."""
    os.write(fd, b'{"pid": %d}\n' % pid)


def send_held(fd: int, numbers: Sequence[int]) -> None:
    """Tell by which numbers its pid 1 holds what it was given to keep."""
    os.write(fd, json.dumps({"held": list(numbers)}).encode() + b"\n")


class InitReport:
    """The reading end of the pipe; `held` is what was told, once it has come to its end."""

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
                raise UnsupportedError("start the container", "its first process died at once")
            self._handle(message)
        return self._pid

    def end(self) -> None:
        """Wait until the command is being executed; raise what kept it from that."""
        while (message := self._next()) is not None:
            self._handle(message)

    def pid_or_zero(self) -> int:
        """The pid however things went; errors were raised before."""
        while not self._pid and (message := self._next()) is not None:
            self._pid = message.get("pid", 0)
        return self._pid
