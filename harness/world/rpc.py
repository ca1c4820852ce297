"""Numbered messages between two processes, each received as a whole or not at all.

The caller may be interrupted at any instruction, by Ctrl-C or by a test's timeout. A message is
taken from the kernel by one system call, so an interrupt loses either a whole message or none. The
number of the next message shows to which request it belongs. A byte stream would lose its position
instead.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from typing import Final, Self

LARGEST: Final = 1 << 15
"""Largest message in bytes that the socket carries; a longer one is passed as a file in memory."""

LAST_WORDS: Final = 0
"""Number of a message that reports how the other end failed; no request uses it."""

_NUMBER: Final = struct.Struct("=Q?")


class FailedError(Exception):
    """The process at the other end failed; the message is its error."""


class Channel:
    """One end of a channel between two processes.

    A message is a number and bytes. Both ends may send at any time.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._ready = select.poll()
        self._ready.register(end, select.POLLIN)

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return the two ends of a new channel."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(here), cls(there)

    @classmethod
    def at(cls, fd: int) -> Self:
        """Return the end of a channel that has the descriptor `fd`, and own that descriptor."""
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd))

    def fileno(self) -> int:
        """Return a descriptor that is readable when a message waits or the other end is closed."""
        return self._end.fileno()

    def detach(self) -> int:
        """Return the descriptor, which the caller then owns; this object is unusable afterwards."""
        return self._end.detach()

    def send(self, number: int, message: bytes) -> None:
        """Send a message; raise `OSError` if the other end is closed."""
        if len(message) <= LARGEST:
            self._end.send(_NUMBER.pack(number, False) + message, socket.MSG_NOSIGNAL)
            return
        file = os.memfd_create("message", os.MFD_CLOEXEC)
        try:
            left = memoryview(message)
            while left:
                left = left[os.write(file, left) :]
            socket.send_fds(self._end, [_NUMBER.pack(number, True)], [file], socket.MSG_NOSIGNAL)
        finally:
            os.close(file)

    def receive(self, patience: float | None = None) -> tuple[int, bytes]:
        """Return the number of the next message, and the message.

        Raises `EOFError` if the other end is closed, and `TimeoutError` if no message comes within
        `patience` seconds.
        """
        if not self._ready.poll(None if patience is None else patience * 1000):
            raise TimeoutError("no message arrived in time")
        try:
            message, files, _, _ = self._take()
        except ConnectionResetError:  # gone with messages unread; its own can still be read
            message, files, _, _ = self._take()
        if not message:
            raise EOFError
        number, in_file = _NUMBER.unpack_from(message)
        if not in_file:
            return number, message[_NUMBER.size :]
        try:
            return number, _content(files[0])
        finally:
            os.close(files[0])

    def _take(self) -> tuple[bytes, list[int], int, object]:
        return socket.recv_fds(self._end, _NUMBER.size + LARGEST, 1)

    def ask(self, number: int, question: bytes, patience: float | None = None) -> bytes:
        """Send a request and return the reply with the same number; discard older replies.

        Raises the errors of `send` and `receive`, and `FailedError` if the other end reports a
        failure.
        """
        until = None if patience is None else time.monotonic() + patience
        self.send(number, question)
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            answered, answer = self.receive(left)
            if answered == LAST_WORDS:
                raise FailedError(answer.decode(errors="replace"))
            if answered == number:
                return answer

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _content(file: int) -> bytes:
    """Return the contents of an open file by its descriptor.

    A file object is not used, because Python prints a warning if an interrupt leaves it open.
    """
    size, parts, got = os.fstat(file).st_size, list[bytes](), 0
    while got < size:
        parts.append(os.pread(file, size - got, got))
        got += len(parts[-1])
    return b"".join(parts)
