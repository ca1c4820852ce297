"""What comes to a published port on the IPv6 loopback address, carried to the container.

The kernel has no way to lead it there: a packet to `::1` is taken only from `lo`, and so
is the answer. The sockets are those by which the container's pid 1 keeps the port.
Whoever calls is seen as the host, by its address on the container's bridge.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any, Final

from runtime.attendant.work import Work, accept

End = tuple[str, int]

_CHUNK: Final = 1 << 16
_FORGOTTEN: Final = 60.0
"""Seconds without a datagram after which a conversation over UDP is taken to be over."""


class Relay:
    """Carries what comes to one socket to `target`, until it is closed."""

    def __init__(self, opened: socket.socket, target: End) -> None:
        self._socket, self._target = opened, target
        self._family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._conversations: dict[Any, socket.socket] = {}
        self._work = Work()
        stream = opened.type == socket.SOCK_STREAM
        self._work.begin(self._streams() if stream else self._datagrams(), opened)

    def close(self) -> None:
        """Carry nothing more."""
        self._work.close()

    # --- connections -------------------------------------------------------------

    async def _streams(self) -> None:
        while True:
            accepted = await accept(self._socket)
            self._work.begin(self._join(accepted), accepted)

    async def _join(self, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            opened = socket.socket(self._family, socket.SOCK_STREAM)
        except OSError:  # there is no descriptor left
            self._work.hang_up(near)
            return
        with self._work.using(opened) as far:
            try:
                await loop.sock_connect(far, self._target)
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pour(near, far))
                    both.create_task(_pour(far, near))
            except* OSError:  # one side broke it off, or nobody listens
                self._work.hang_up(near)
                self._work.hang_up(far)

    # --- datagrams ---------------------------------------------------------------

    async def _datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, caller = await loop.sock_recvfrom(self._socket, _CHUNK)
            with suppress(OSError):  # the caller is not told, as with a datagram that is lost
                if caller not in self._conversations:
                    self._conversations[caller] = self._conversation(caller)
                await loop.sock_sendall(self._conversations[caller], data)

    def _conversation(self, caller: Any) -> socket.socket:
        far = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            far.connect(self._target)
        except OSError:
            far.close()
            raise
        self._work.begin(self._answers(far, caller), far)
        return far

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


async def _pour(source: socket.socket, sink: socket.socket) -> None:
    """Carry everything, and the end of it."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await loop.sock_sendall(sink, data)
    sink.shutdown(socket.SHUT_WR)
