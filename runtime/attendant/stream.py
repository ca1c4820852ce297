"""Messages on a TCP connection, each behind its length (RFC 1035, 4.2.2)."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

_LENGTH: Final = 2
_CHUNK: Final = 1 << 16


class Stream:
    """One connection, on which a message may come in pieces, or with others (RFC 7766, 8)."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._heard = bytearray()
        self._sending = asyncio.Lock()

    async def receive(self) -> bytes:
        """The next message; `ConnectionError` when there is none before the end.

        Whoever gives up waiting can ask again: nothing is lost.
        """
        loop = asyncio.get_running_loop()
        while (end := self._end()) > len(self._heard):
            more = await loop.sock_recv(self._socket, _CHUNK)
            if not more:
                raise ConnectionError("hung up before the message was whole")
            self._heard += more
        message = bytes(self._heard[_LENGTH:end])
        del self._heard[:end]  # what came with it is for the next call
        return message

    async def send(self, message: bytes) -> None:
        """Send a message, and no other in the midst of it."""
        framed = len(message).to_bytes(_LENGTH, "big") + message
        async with self._sending:
            await asyncio.get_running_loop().sock_sendall(self._socket, framed)

    def _end(self) -> int:
        """Where the first message ends, as far as that can be told yet."""
        if len(self._heard) < _LENGTH:
            return _LENGTH
        return _LENGTH + int.from_bytes(self._heard[:_LENGTH], "big")
