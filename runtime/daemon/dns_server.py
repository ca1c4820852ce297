"""The resolver of one container: receive its DNS queries, and reply or forward them.

Queries about peers get a reply at once, regardless of pending queries. The numbers of forwarded
queries and of connections are limited.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Final, Literal

import dns.exception
from dns.message import Message

from runtime.daemon import dns_names
from runtime.daemon.dns_names import DnsNames, Upstream
from runtime.daemon.dns_socket import DnsSockets, namespace
from runtime.daemon.tasks import Work, accept

_LONGEST: Final = 1 << 16
_PLAIN_LIMIT: Final = 512
"""Maximum length of a UDP reply, unless the query allows more (RFC 1035, RFC 6891)."""
_FORWARDED: Final = 256
"""Maximum number of one container's queries that are forwarded at a time."""
_CONNECTIONS: Final = 256
"""Maximum number of connections of one container."""

Ask = Callable[[], Awaitable[bytes | None]]


class Resolver:
    """Resolver of a container; once closed it holds no descriptor of the container's netns."""

    def __init__(self, identity: str, known: DnsNames, sockets: DnsSockets, pidfd: int) -> None:
        self._identity, self._names, self._sockets, self._pidfd = identity, known, sockets, pidfd
        self._work, self._forwarding = Work(), Work()
        self._turn = asyncio.Lock()
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._work.begin(self._receive_datagrams(), sockets.udp)
        self._work.begin(self._accept_connections(), sockets.tcp)

    def close(self) -> None:
        """Close the resolver's sockets."""
        self._work.close()
        self._forwarding.close()

    # --- receiving -----------------------------------------------------------------

    async def _receive_datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            query, client = await loop.sock_recvfrom(self._sockets.udp, _LONGEST)
            await self._take("udp", query, partial(self._send_to, client))

    async def _send_to(self, client: tuple[str, int], answer: bytes) -> None:
        with suppress(OSError):
            await asyncio.get_running_loop().sock_sendto(self._sockets.udp, answer, client)

    async def _accept_connections(self) -> None:
        while True:
            self._begin_connection(await accept(self._sockets.tcp))
            if len(self._connections) > _CONNECTIONS:
                await self._end_longest_idle()
            await asyncio.sleep(0)  # queries on the other sockets come first

    def _begin_connection(self, accepted: socket.socket) -> None:
        connection = Connection(accepted, partial(self._take, "tcp"))
        task = self._work.begin(connection.hold(), accepted)
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)

    async def _end_longest_idle(self) -> None:
        *others, _ = self._connections  # the last one is the new one
        longest = min(others, key=lambda task: self._connections[task].idleness)
        longest.cancel()
        await asyncio.wait([longest])

    # --- answering ---------------------------------------------------------------

    async def _take(
        self, transport: Transport, wire: bytes, send: Send
    ) -> asyncio.Task[None] | None:
        """Reply to a query at once, or return the task that forwards it."""
        async with self._turn:  # one query after another, on all connections
            await asyncio.sleep(0)  # other containers get their turn, however fast this one queries
            query = dns_names.read(wire)
            if query is None:
                return None
            found = self._found(query)
        if isinstance(found, Message):
            room = max(query.payload, _PLAIN_LIMIT) if transport == "udp" else _LONGEST - 1
            await send(dns_names.fitted(found, room))
        elif len(self._forwarding) < _FORWARDED:
            opener = self._inside if found.from_inside else self._outside
            asking = partial(ask, wire, found.servers, transport, opener)
            return self._forwarding.begin(self._forward(asking, query, send))
        elif transport == "tcp":  # over UDP a client without a reply repeats its query
            await send(dns_names.failed(query).to_wire())
        return None

    def _found(self, query: Message) -> Message | Upstream:
        """Return the reply, or the resolvers to forward the query to."""
        try:
            answer = self._names.answer(self._identity, query)
            if answer is not None:
                return answer
            others = self._names.upstream(self._identity)
            return others if others.servers else dns_names.unknown(query)
        except (OSError, dns.exception.DNSException):
            return dns_names.failed(query)  # the container is being removed

    async def _forward(self, ask: Ask, query: Message, send: Send) -> None:
        answer = await ask() or dns_names.failed(query).to_wire()
        with suppress(OSError):
            await send(answer)

    # --- forwarding ----------------------------------------------------------------

    @contextmanager
    def _inside(
        self, family: socket.AddressFamily, kind: socket.SocketKind
    ) -> Iterator[socket.socket]:
        with namespace(self._pidfd) as space:
            opened = space.socket(family, kind)
        with self._forwarding.using(opened):
            yield opened

    @contextmanager
    def _outside(
        self, family: socket.AddressFamily, kind: socket.SocketKind
    ) -> Iterator[socket.socket]:
        with self._forwarding.using(socket.socket(family, kind)) as opened:
            yield opened


_IDLE: Final = 10.0
"""Seconds until a connection without a query, or one that accepts no reply, is closed."""

Send = Callable[[bytes], Awaitable[None]]
"""Send one reply to the client of the query."""
Take = Callable[[bytes, Send], Awaitable[asyncio.Task[None] | None]]
"""Reply to a query: on return, or later by a task."""


class Connection:
    """One DNS connection over TCP, served until the client closes it or it is idle too long."""

    def __init__(self, opened: socket.socket, take: Take) -> None:
        self._socket, self._take = opened, take
        self._stream = Stream(opened)
        self._unanswered: set[asyncio.Task[None]] = set()
        self._last_query = asyncio.get_running_loop().time()

    @property
    def idleness(self) -> tuple[bool, float]:
        """Sort key: connections without a pending query first, the longest idle before others."""
        return bool(self._unanswered), self._last_query

    async def hold(self) -> None:
        """Read queries until the client closes its side; replies still go out after that."""
        try:
            with suppress(OSError):
                await self._receive()
            while self._unanswered:
                await asyncio.wait(self._unanswered)
        finally:
            for task in self._unanswered:
                task.cancel()

    async def _receive(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_IDLE):
                    query = await self._stream.receive()
            except TimeoutError:
                if self._unanswered:
                    continue
                return
            self._last_query = asyncio.get_running_loop().time()
            task = await self._take(query, self._send)
            if task is not None:
                self._unanswered.add(task)
                task.add_done_callback(self._unanswered.discard)

    async def _send(self, answer: bytes) -> None:
        try:
            async with asyncio.timeout(_IDLE):
                await self._stream.send(answer)
        except TimeoutError:
            # Part of the reply may have been sent: the client could not parse any data after
            # that.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            raise


_LENGTH: Final = 2
_CHUNK: Final = 1 << 16


class Stream:
    """DNS messages on a TCP connection, which may split or join messages (RFC 7766, 8)."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._received = bytearray()
        self._sending = asyncio.Lock()

    async def receive(self) -> bytes:
        """Return the next message; `ConnectionError` if the connection ends before its end.

        A cancelled call loses nothing: a later call returns the message.
        """
        loop = asyncio.get_running_loop()
        while (end := self._end()) > len(self._received):
            more = await loop.sock_recv(self._socket, _CHUNK)
            if not more:
                raise ConnectionError("connection closed before the message was complete")
            self._received += more
        message = bytes(self._received[_LENGTH:end])
        del self._received[:end]  # bytes after the message belong to the next call
        return message

    async def send(self, message: bytes) -> None:
        """Send one message without interleaving another."""
        framed = len(message).to_bytes(_LENGTH, "big") + message
        async with self._sending:
            await asyncio.get_running_loop().sock_sendall(self._socket, framed)

    def _end(self) -> int:
        """Return the end position of the first message, or of its length field if incomplete."""
        if len(self._received) < _LENGTH:
            return _LENGTH
        return _LENGTH + int.from_bytes(self._received[:_LENGTH], "big")


PATIENCE: Final = 2.0
"""Time limit for one resolver, in seconds: a client repeats its query after five."""
_DNS: Final = 53
_RCODE: Final = 0x0F
_GIVES_UP: Final = frozenset({2, 4, 5})
"""SERVFAIL, NOTIMP, REFUSED: another resolver may have a reply (RFC 1035, 4.1.1)."""

Transport = Literal["udp", "tcp"]
Open = Callable[[socket.AddressFamily, socket.SocketKind], AbstractContextManager[socket.socket]]
"""Open a non-blocking socket in the right netns."""


async def ask(
    query: bytes, servers: Sequence[str], transport: Transport, opener: Open
) -> bytes | None:
    """Query resolvers in turn; return the first reply, or `None`, with the query's own id.

    A reply with an error code in `_GIVES_UP` is returned only if no other resolver has a better
    one.
    """
    given_up: bytes | None = None
    # A random id, so that an attacker who spoofs the resolver has to guess it too.
    identity = os.urandom(2)
    for server in servers:
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await _ask_one(identity + query[2:], server, transport, opener)
        except (OSError, TimeoutError, ValueError):
            continue
        answer = query[:2] + answer[2:]
        if answer[3] & _RCODE not in _GIVES_UP:
            return answer
        given_up = answer
    return given_up


async def _ask_one(query: bytes, server: str, transport: Transport, opener: Open) -> bytes:
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    flags = socket.AI_NUMERICHOST
    family, _, _, _, address = socket.getaddrinfo(server, _DNS, type=kind, flags=flags)[0]
    receive: Callable[[], Awaitable[bytes]]
    with opener(family, kind) as opened:
        # A connected socket receives from the resolver only.
        await loop.sock_connect(opened, address)
        if transport == "tcp":
            stream = Stream(opened)
            await stream.send(query)
            receive = stream.receive
        else:
            await loop.sock_sendall(opened, query)
            receive = partial(loop.sock_recv, opened, _LONGEST)
        while not _answers(answer := await receive(), query):
            pass
        return answer


def _answers(answer: bytes, query: bytes) -> bool:
    """Return whether a message is a reply and has the query's id."""
    return len(answer) >= 12 and answer[:2] == query[:2] and bool(answer[2] & 0x80)
