"""The resolver of one container: hears its questions, answers them or passes them on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import dns.exception

from runtime.attendant import forward, names
from runtime.attendant.ears import Ears, namespace
from runtime.attendant.forward import Transport
from runtime.attendant.names import Names
from runtime.attendant.work import Work

_LONGEST: Final = 1 << 16
_PLAIN_LIMIT: Final = 512
"""No answer over UDP is longer, in bytes, unless the asker says so (RFC 1035, RFC 6891)."""
_AT_ONCE: Final = 256
"""How many questions of one container are under way at most."""
_IDLE: Final = 10.0
"""Seconds after which a connection without a question is closed."""


class Resolver:
    """Serves until it is closed: then nothing of it keeps the container's namespace alive."""

    def __init__(self, identity: str, known: Names, ears: Ears, pidfd: int) -> None:
        self._identity, self._names, self._ears, self._pidfd = identity, known, ears, pidfd
        self._work = Work()
        self._work.begin(self._hear_datagrams(), ears.udp)
        self._work.begin(self._hear_connections(), ears.tcp)

    def close(self) -> None:
        """Hear nothing more."""
        self._work.close()

    # --- hearing -----------------------------------------------------------------

    async def _hear_datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            query, asker = await loop.sock_recvfrom(self._ears.udp, _LONGEST)
            self._begin(self._answer_datagram(query, asker))

    async def _answer_datagram(self, query: bytes, asker: tuple[str, int]) -> None:
        answer = await self._answer(query, "udp")
        if answer:
            with suppress(OSError):
                await asyncio.get_running_loop().sock_sendto(self._ears.udp, answer, asker)

    async def _hear_connections(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self._ears.tcp)
            self._begin(self._converse(accepted), accepted)

    async def _converse(self, accepted: socket.socket) -> None:
        """One query after the other, each behind its length (RFC 7766)."""
        loop = asyncio.get_running_loop()
        with suppress(OSError, TimeoutError):
            while True:
                async with asyncio.timeout(_IDLE):
                    query = await forward.one_message(accepted)
                answer = await self._answer(query, "tcp")
                if not answer:
                    return
                await loop.sock_sendall(accepted, len(answer).to_bytes(2, "big") + answer)

    def _begin(self, work: Coroutine[None, None, None], *own: socket.socket) -> None:
        if len(self._work) <= _AT_ONCE:
            self._work.begin(work, *own)
            return
        work.close()  # it floods: what is lost is its own
        for opened in own:
            opened.close()

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
                    opener = self._inside if from_inside else self._outside
                    passed_on = await forward.ask(wire, servers, transport, opener)
                    if passed_on is not None:
                        return passed_on
                    answer = names.failed(query)
        except (OSError, dns.exception.DNSException):
            answer = names.failed(query)  # the container is just going
        limit = (max(query.payload, _PLAIN_LIMIT)) if transport == "udp" else _LONGEST - 1
        return names.fitted(answer, limit)

    # --- asking others -------------------------------------------------------------

    @contextmanager
    def _inside(
        self, family: socket.AddressFamily, kind: socket.SocketKind
    ) -> Iterator[socket.socket]:
        with namespace(self._pidfd) as space:
            opened = space.socket(family, kind)
        with self._work.using(opened):
            yield opened

    @contextmanager
    def _outside(
        self, family: socket.AddressFamily, kind: socket.SocketKind
    ) -> Iterator[socket.socket]:
        with self._work.using(socket.socket(family, kind)) as opened:
            yield opened
