"""Passing a question on to the next resolver, over the transport it came by (RFC 7766)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, Literal

from runtime.attendant.stream import Stream

PATIENCE: Final = 2.0
"""How long one resolver may take, in seconds: a client asks again after five."""
_DNS: Final = 53
_LONGEST: Final = 1 << 16
_RCODE: Final = 0x0F
_GIVES_UP: Final = frozenset({2, 4, 5})
"""SERVFAIL, NOTIMP, REFUSED: another resolver may know better (RFC 1035, 4.1.1)."""

Transport = Literal["udp", "tcp"]
Open = Callable[[socket.AddressFamily, socket.SocketKind], AbstractContextManager[socket.socket]]
"""Opens a socket in the right namespace, which does not block."""


async def ask(
    query: bytes, servers: Sequence[str], transport: Transport, opener: Open
) -> bytes | None:
    """The first answer, its id that of the query; `None` when there is none.

    An answer by which a resolver gives up counts when nobody has a better one.
    """
    given_up: bytes | None = None
    # An id of our own: whoever wants to answer in the server's place has to guess it too.
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
    hear: Callable[[], Awaitable[bytes]]
    with opener(family, kind) as opened:
        # Connected, a socket hears the server and nobody else.
        await loop.sock_connect(opened, address)
        if transport == "tcp":
            stream = Stream(opened)
            await stream.send(query)
            hear = stream.receive
        else:
            await loop.sock_sendall(opened, query)
            hear = partial(loop.sock_recv, opened, _LONGEST)
        while not _answers(answer := await hear(), query):
            pass
        return answer


def _answers(answer: bytes, query: bytes) -> bool:
    """Whether it is an answer, with the query's id."""
    return len(answer) >= 12 and answer[:2] == query[:2] and bool(answer[2] & 0x80)
