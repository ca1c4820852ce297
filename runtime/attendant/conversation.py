"""One connection to a resolver: no question on it waits for the answer to another (RFC 7766)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from runtime.attendant.stream import Stream

_IDLE: Final = 10.0
"""Seconds after which a connection without a question is closed, and one that takes no answer."""

Say = Callable[[bytes], Awaitable[None]]
"""Sends one answer to whoever has asked."""
Take = Callable[[bytes, Say], Awaitable[asyncio.Task[None] | None]]
"""Has a question answered: by now, or by a task that is under way."""


class Conversation:
    """Has what comes on one connection answered, until the other side ends it or is idle."""

    def __init__(self, opened: socket.socket, take: Take) -> None:
        self._socket, self._take = opened, take
        self._stream = Stream(opened)
        self._unanswered: set[asyncio.Task[None]] = set()
        self._heard = asyncio.get_running_loop().time()

    @property
    def idleness(self) -> tuple[bool, float]:
        """Least of who waits for no answer, and of these of who has asked nothing for longest."""
        return bool(self._unanswered), self._heard

    async def hold(self) -> None:
        """Hear questions to the end; whoever has nothing more to ask still gets the answers."""
        try:
            with suppress(OSError):
                await self._hear()
            while self._unanswered:
                await asyncio.wait(self._unanswered)
        finally:
            for task in self._unanswered:
                task.cancel()

    async def _hear(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_IDLE):
                    question = await self._stream.receive()
            except TimeoutError:
                if self._unanswered:
                    continue
                return
            self._heard = asyncio.get_running_loop().time()
            task = await self._take(question, self._say)
            if task is not None:
                self._unanswered.add(task)
                task.add_done_callback(self._unanswered.discard)

    async def _say(self, answer: bytes) -> None:
        try:
            async with asyncio.timeout(_IDLE):
                await self._stream.send(answer)
        except TimeoutError:
            # Part of it may be sent: nothing that came behind it could be understood.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            raise
