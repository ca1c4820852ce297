"""Passing a question on to the next resolver, over the transport it came by (RFC 7766)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal

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
    with opener(family, kind) as opened:
        # Connected, a socket hears the server and nobody else.
        await loop.sock_connect(opened, address)
        if transport == "tcp":
            await loop.sock_sendall(opened, len(query).to_bytes(2, "big") + query)
            return await one_message(opened)
        await loop.sock_sendall(opened, query)
        while True:
            answer = await loop.sock_recv(opened, _LONGEST)
            if _answers(answer, query):
                return answer


async def one_message(opened: socket.socket) -> bytes:
    """The next message on a connection, behind its length; `ConnectionError` when it ends."""
    loop = asyncio.get_running_loop()
    heard = b""
    while len(heard) < 2 or len(heard) < 2 + int.from_bytes(heard[:2], "big"):
        more = await loop.sock_recv(opened, _LONGEST)
        if not more:
            raise ConnectionError("hung up before the message was whole")
        heard += more
    return heard[2 : 2 + int.from_bytes(heard[:2], "big")]


def _answers(answer: bytes, query: bytes) -> bool:
    """Whether it is an answer, with the query's id."""
    return len(answer) >= 12 and answer[:2] == query[:2] and bool(answer[2] & 0x80)
