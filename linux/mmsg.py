"""Many packets with one system call: sendmmsg(2), recvmmsg(2).

The packets of a batch lie in one buffer, in slots of the same size: whoever makes or reads
them does so for all of them at once (`struct.iter_unpack`, slices with a step).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_NAME: Final = struct.Struct("=HH4s8x")
"""`struct sockaddr_in`; the port of a raw socket is nobody's."""


class _Header(ctypes.Structure):
    """`struct msghdr`."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.c_void_p),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """`struct mmsghdr`: the header, and how long the packet came out."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


class _Vector(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Batch:
    """`count` slots of `size` bytes; with `to`, a packet for each of these addresses."""

    def __init__(self, count: int, size: int, *, to: Sequence[IPv4Address] = ()) -> None:
        self.data = bytearray(count * size)
        """All slots, one after the other."""
        self._size, self._count = size, count
        base = ctypes.addressof((ctypes.c_char * len(self.data)).from_buffer(self.data))
        self._vectors = (_Vector * count)(*(_Vector(base + at * size, size) for at in range(count)))
        self._nothing = bytes(len(self.data))
        self._names = ctypes.create_string_buffer(
            b"".join(_NAME.pack(socket.AF_INET, 0, item.packed) for item in to)
        )
        self._messages = (_Message * count)()
        for at, message in enumerate(item.header for item in self._messages):
            message.vector = ctypes.addressof(self._vectors[at])
            message.vector_length = 1
            if to:
                message.name = ctypes.addressof(self._names) + at * _NAME.size
                message.name_length = _NAME.size

    def send(self, descriptor: int, first: int, last: int) -> int:
        """Send the packets from `first` up to `last`; how many went. Raises `OSError` for none."""
        start = ctypes.byref(self._messages, first * ctypes.sizeof(_Message))
        sent: int = _libc.sendmmsg(descriptor, start, last - first, 0)
        if sent < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"sendmmsg: {os.strerror(number)}")
        return sent

    def receive(self, descriptor: int) -> memoryview:
        """The slots of what has come; none when nothing has.

        What is shorter than a slot is followed by zeros, what is longer is cut off.
        """
        self.data[:] = self._nothing
        got = _libc.recvmmsg(descriptor, self._messages, self._count, socket.MSG_DONTWAIT, None)
        if got < 0:
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                return memoryview(b"")
            raise OSError(number, f"recvmmsg: {os.strerror(number)}")
        return memoryview(self.data)[: got * self._size]
