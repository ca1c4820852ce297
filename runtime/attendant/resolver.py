"""The resolver of one container: hears its questions, answers them or passes them on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Final

import dns.exception

from linux.netns import NetNS
from runtime.attendant import forward, names
from runtime.attendant.ears import Ears
from runtime.attendant.forward import Transport
from runtime.attendant.names import Names

_LONGEST: Final = 1 << 16
_PLAIN_LIMIT: Final = 512
"""No answer over UDP is longer, in bytes, unless the asker says so (RFC 1035, RFC 6891)."""
_AT_ONCE: Final = 256
"""How many questions of one container are under way at most."""
_IDLE: Final = 10.0
"""Seconds after which a connection without a question is closed."""


class Resolver:
    """Serves until it is closed, which gives the container's namespace up."""

    def __init__(self, identity: str, known: Names, ears: Ears, space: NetNS) -> None:
        self._identity, self._names, self._ears, self._space = identity, known, ears, space
        for opened in ears:
            opened.setblocking(False)
        self._tasks = {
            asyncio.ensure_future(self._hear_datagrams()),
            asyncio.ensure_future(self._hear_connections()),
        }

    def close(self) -> None:
        """Hear nothing more."""
        for task in self._tasks:
            task.cancel()
        for opened in self._ears:
            opened.close()
        self._space.close()

    # --- hearing -----------------------------------------------------------------

    async def _hear_datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            query, asker = await loop.sock_recvfrom(self._ears.udp, _LONGEST)
            self._begin(self._answer_datagram(query, asker))

    async def _answer_datagram(self, query: bytes, asker: tuple[str, int]) -> None:
        answer = await self._answer(query, "udp")
        if answer:
            await asyncio.get_running_loop().sock_sendto(self._ears.udp, answer, asker)

    async def _hear_connections(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self._ears.tcp)
            self._begin(self._converse(accepted))

    async def _converse(self, accepted: socket.socket) -> None:
        """One query after the other, each behind its length (RFC 7766)."""
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            while True:
                async with asyncio.timeout(_IDLE):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    query = await reader.readexactly(length)
                answer = await self._answer(query, "tcp")
                if not answer:
                    return
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            return
        finally:
            writer.close()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        if len(self._tasks) > _AT_ONCE:
            work.close()  # it floods: what is lost is its own
            return
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- answering ---------------------------------------------------------------

    async def _answer(self, wire: bytes, transport: Transport) -> bytes | None:
        query = names.read(wire)
        if query is None:
            return None
        try:
            answer = self._names.answer(self._identity, query)
            if answer is None:
                servers, from_inside = self._names.upstream(self._identity)
                if not servers:
                    answer = names.unknown(query)
                else:
                    opener = self._space.socket if from_inside else socket.socket
                    passed_on = await forward.ask(wire, servers, transport, opener)
                    if passed_on is not None:
                        return passed_on
                    answer = names.failed(query)
        except (OSError, dns.exception.DNSException):
            answer = names.failed(query)  # the container is just going
        limit = (max(query.payload, _PLAIN_LIMIT)) if transport == "udp" else _LONGEST - 1
        return answer.to_wire(max_size=limit, prefer_truncation=True)
