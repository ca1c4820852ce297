"""Tests of hostile DNS queries, which harm only the container that sends them."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import dns.message
import dns.rdatatype
import pytest

from runtime.engine import Engine
from tests.runtime.conftest import FOR_EVER
from tests.runtime.daemon.dns_client import (
    RESOLVER,
    ask,
    connected_to_resolver,
    encoded_queries,
    reply_values,
)
from tests.runtime.support.inspection import netns

_LONG = b"\x01a" * 126 + b"\0"
"""A name with as many labels as possible."""
_THE_NAME = 0xC000 | 12
"""A pointer to the name in the question: two bytes for 253 (RFC 1035, 4.1.4)."""
_ROOM = 65_000


def _records() -> bytes:
    """Return a DNS query with thousands of records, each with three long names."""
    body = bytearray(_LONG + struct.pack(">HH", dns.rdatatype.A, 1))
    count = 0
    while len(body) < _ROOM:
        kind = (dns.rdatatype.RP, 1, 0, 4)
        body += struct.pack(">HHHIHHH", _THE_NAME, *kind, _THE_NAME, _THE_NAME)
        count += 1
    return struct.pack(">HHHHHH", 1, 0x0100, 1, count, 0, 0) + body


def _questions() -> bytes:
    """Return a DNS message of thousands of questions, each about a long name."""
    body = bytearray(_LONG + struct.pack(">HH", 1, 1))
    count = 1
    while len(body) < _ROOM:
        count += 1
        body += struct.pack(">HHH", _THE_NAME, count, 1)
    return struct.pack(">HHHHHH", 1, 0x0100, count, 0, 0, 0) + body


def _options() -> bytes:
    """Return a DNS query with an EDNS record that has thousands of options."""
    options = struct.pack(">HH", 65001, 0) * (_ROOM // 4)
    query = dns.message.make_query("web", "A", use_edns=False).to_wire()
    edns = struct.pack(">BHHIH", 0, dns.rdatatype.OPT, 1232, 0, len(options))
    return query[:10] + b"\0\1" + query[12:] + edns + options


@pytest.mark.parametrize("made", [_records, _questions, _options])
def test_expensive_dns_query_does_not_delay_other_containers(
    engine: Engine, lan: str, made: Callable[[], bytes]
) -> None:
    """An expensive DNS query does not delay other containers' queries for seconds.

    One process serves all containers.
    """
    web = engine.run("base", FOR_EVER, name="web", network=lan)
    db = engine.run("base", FOR_EVER, name="db", network=lan)
    assert reply_values(ask(db, "web")) == {"10.9.0.2"}
    wire = made()
    with netns(web) as space, space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect((RESOLVER, 53))
        for _ in range(20):
            opened.send(wire)
        assert reply_values(ask(db, "web", patience=2)) == {"10.9.0.2"}
    with connected_to_resolver(web) as opened:
        for _ in range(5):
            opened.sendall(len(wire).to_bytes(2, "big") + wire)
        assert reply_values(ask(db, "web", patience=2)) == {"10.9.0.2"}


def test_many_tcp_connections_do_not_starve_other_containers(engine: Engine, lan: str) -> None:
    """A container's DNS query is not delayed by hundreds of queries on another's connections."""
    web = engine.run("base", FOR_EVER, name="web", network=lan)
    db = engine.run("base", FOR_EVER, name="db", network=lan)
    with ExitStack() as stack:
        opened = [stack.enter_context(connected_to_resolver(web)) for _ in range(200)]
        for connection in opened:
            connection.sendall(encoded_queries("db") * 100)
        between = []
        for _ in range(5):
            before = _unread(opened)
            assert reply_values(ask(db, "web")) == {"10.9.0.2"}
            between.append((_unread(opened) - before) // len(encoded_queries("db")))
    assert min(between) < 100


def _unread(connections: Sequence[socket.socket]) -> int:
    """Return the number of bytes of replies that wait to be read."""
    waiting = [fcntl.ioctl(item, termios.FIONREAD, bytes(4)) for item in connections]
    return sum(int.from_bytes(item, sys.byteorder) for item in waiting)
