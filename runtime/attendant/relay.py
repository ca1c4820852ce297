"""What comes to a published port on the IPv6 loopback address, carried to the container.

The kernel has no way to lead it there: a packet to `::1` is taken only from `lo`, and so
is the answer. The sockets are those by which the container's pid 1 keeps the port.
Whoever calls is seen as the host, by its address on the container's bridge.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

End = tuple[str, int]

_CHUNK: Final = 1 << 16
_FORGOTTEN: Final = 60.0
"""Seconds without a datagram after which a conversation over UDP is taken to be over."""


class Relay:
    """Carries what comes to one socket to `target`, until it is closed."""

    def __init__(self, opened: socket.socket, target: End) -> None:
        self._socket, self._target = opened, target
        opened.setblocking(False)
        self._conversations: dict[Any, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        stream = opened.type == socket.SOCK_STREAM
        self._begin(self._streams() if stream else self._datagrams())

    def close(self) -> None:
        """Carry nothing more."""
        for task in self._tasks:
            task.cancel()
        self._socket.close()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- connections -------------------------------------------------------------

    async def _streams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self._socket)
            self._begin(self._join(accepted))

    async def _join(self, accepted: socket.socket) -> None:
        near_in, near_out = await asyncio.open_connection(sock=accepted)
        try:
            far_in, far_out = await asyncio.open_connection(*self._target)
        except OSError:
            near_out.transport.abort()  # as if nobody had listened
            return
        try:
            await asyncio.gather(_pour(near_in, far_out), _pour(far_in, near_out))
        except OSError:
            near_out.transport.abort()
            far_out.transport.abort()
        finally:
            near_out.close()
            far_out.close()

    # --- datagrams ---------------------------------------------------------------

    async def _datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, caller = await loop.sock_recvfrom(self._socket, _CHUNK)
            if caller not in self._conversations:
                far = socket.socket(self._socket.family, socket.SOCK_DGRAM)
                far.setblocking(False)
                far.connect(self._target)
                self._conversations[caller] = far
                self._begin(self._answers(far, caller))
            with suppress(OSError):  # refused: the caller is not told, as with a lost datagram
                await loop.sock_sendall(self._conversations[caller], data)

    async def _answers(self, far: socket.socket, caller: Any) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                async with asyncio.timeout(_FORGOTTEN):
                    data = await loop.sock_recv(far, _CHUNK)
                await loop.sock_sendto(self._socket, data, caller)
        except (OSError, TimeoutError):
            return
        finally:
            del self._conversations[caller]
            far.close()


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Carry everything, and the end of it."""
    while data := await source.read(_CHUNK):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
