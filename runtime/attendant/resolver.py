"""The resolver of one container: hears its questions, answers them or passes them on.

What it knows itself it answers at once, whatever else is under way; what is asked of others
and connections have a limit each.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

import dns.exception
from dns.message import Message

from runtime.attendant import forward, names
from runtime.attendant.conversation import Conversation, Say
from runtime.attendant.ears import Ears, namespace
from runtime.attendant.forward import Transport
from runtime.attendant.names import Names, Upstream
from runtime.attendant.work import Work, accept

_LONGEST: Final = 1 << 16
_PLAIN_LIMIT: Final = 512
"""No answer over UDP is longer, in bytes, unless the asker says so (RFC 1035, RFC 6891)."""
_PASSED_ON: Final = 256
"""How many questions of one container others are asked at a time at most."""
_CONNECTIONS: Final = 256
"""How many connections one container has at most."""

Ask = Callable[[], Awaitable[bytes | None]]


class Resolver:
    """Serves until it is closed: then nothing of it keeps the container's namespace alive."""

    def __init__(self, identity: str, known: Names, ears: Ears, pidfd: int) -> None:
        self._identity, self._names, self._ears, self._pidfd = identity, known, ears, pidfd
        self._work, self._passed_on = Work(), Work()
        self._turn = asyncio.Lock()
        self._conversations: dict[asyncio.Task[None], Conversation] = {}
        self._work.begin(self._hear_datagrams(), ears.udp)
        self._work.begin(self._hear_connections(), ears.tcp)

    def close(self) -> None:
        """Hear nothing more."""
        self._work.close()
        self._passed_on.close()

    # --- hearing -----------------------------------------------------------------

    async def _hear_datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            query, asker = await loop.sock_recvfrom(self._ears.udp, _LONGEST)
            await self._take("udp", query, partial(self._send_to, asker))

    async def _send_to(self, asker: tuple[str, int], answer: bytes) -> None:
        with suppress(OSError):
            await asyncio.get_running_loop().sock_sendto(self._ears.udp, answer, asker)

    async def _hear_connections(self) -> None:
        while True:
            self._converse(await accept(self._ears.tcp))
            if len(self._conversations) > _CONNECTIONS:
                await self._end_longest_idle()
            await asyncio.sleep(0)  # what has come on the others is heard first

    def _converse(self, accepted: socket.socket) -> None:
        conversation = Conversation(accepted, partial(self._take, "tcp"))
        task = self._work.begin(conversation.hold(), accepted)
        self._conversations[task] = conversation
        task.add_done_callback(self._conversations.pop)

    async def _end_longest_idle(self) -> None:
        *others, _ = self._conversations  # the last has only just come
        longest = min(others, key=lambda task: self._conversations[task].idleness)
        longest.cancel()
        await asyncio.wait([longest])

    # --- answering ---------------------------------------------------------------

    async def _take(self, transport: Transport, wire: bytes, say: Say) -> asyncio.Task[None] | None:
        """Answer a question at once, or have others asked, by the task that is returned."""
        async with self._turn:  # one question after the other, on however many connections
            await asyncio.sleep(0)  # other containers have their turn, however fast this one asks
            query = names.read(wire)
            if query is None:
                return None
            found = self._found(query)
        if isinstance(found, Message):
            room = max(query.payload, _PLAIN_LIMIT) if transport == "udp" else _LONGEST - 1
            await say(names.fitted(found, room))
        elif len(self._passed_on) < _PASSED_ON:
            opener = self._inside if found.from_inside else self._outside
            ask = partial(forward.ask, wire, found.servers, transport, opener)
            return self._passed_on.begin(self._pass_on(ask, query, say))
        elif transport == "tcp":  # over UDP, whoever gets no answer asks again
            await say(names.failed(query).to_wire())
        return None

    def _found(self, query: Message) -> Message | Upstream:
        """The answer, or whom to ask for it."""
        try:
            answer = self._names.answer(self._identity, query)
            if answer is not None:
                return answer
            others = self._names.upstream(self._identity)
            return others if others.servers else names.unknown(query)
        except (OSError, dns.exception.DNSException):
            return names.failed(query)  # the container is just going

    async def _pass_on(self, ask: Ask, query: Message, say: Say) -> None:
        answer = await ask() or names.failed(query).to_wire()
        with suppress(OSError):
            await say(answer)

    # --- asking others -------------------------------------------------------------

    @contextmanager
    def _inside(
        self, family: socket.AddressFamily, kind: socket.SocketKind
    ) -> Iterator[socket.socket]:
        with namespace(self._pidfd) as space:
            opened = space.socket(family, kind)
        with self._passed_on.using(opened):
            yield opened

    @contextmanager
    def _outside(
        self, family: socket.AddressFamily, kind: socket.SocketKind
    ) -> Iterator[socket.socket]:
        with self._passed_on.using(socket.socket(family, kind)) as opened:
            yield opened
