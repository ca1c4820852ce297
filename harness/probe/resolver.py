"""DNS queries from inside a netns, to the resolvers in its resolv.conf.

All queries are sent at the same time, each from a socket in the netns. dnspython builds and parses
the messages. A resolver is a process, so its silence becomes final only after a time limit. For all
other probes the kernel's counters decide.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import Final, NamedTuple

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

from harness.model.plan import Family
from harness.model.topology import Address
from harness.probe.sockets import ADDRESS_FAMILIES
from linux.netns import NetNS

ANSWER_BOUND: Final = 2.0
"""Bound on a resolver's reply, in seconds. The world's resolver takes a millisecond."""

_TYPES: Final = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}
_PORT: Final = 53
_LONGEST: Final = 4096
_ID: Final = 2
"""Length in bytes of the message id, the first field (RFC 1035, 4.1.1)."""
_MAX_NAMESERVERS: Final = 3
"""Number of `nameserver` lines that the C library uses: MAXNS in resolv.conf(5)."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A name to look up from inside the netns `space`, with the resolvers of its resolv.conf."""

    space: NetNS
    resolv_conf: str
    name: str
    family: Family


@dataclass(frozen=True, slots=True)
class Resolved:
    """Address of a name, or `None` and the reason why the lookup found no address."""

    address: Address | None
    reason: str = ""


def nameservers(resolv_conf: str) -> list[Address]:
    """Return the resolvers in a resolv.conf(5), in order; skip entries that are not addresses."""
    found: list[Address] = []
    for line in resolv_conf.splitlines():
        match line.split():
            case ["nameserver", text, *_]:
                with contextlib.suppress(ValueError):
                    found.append(ip_address(text.partition("%")[0]))
    return found[:_MAX_NAMESERVERS]


class WorldSilent(Exception):
    """The world's own resolver does not reply either, so there is no verdict about the lookups."""


def resolve(lookups: Sequence[Lookup], *, control: Lookup | None = None) -> list[Resolved]:
    """Look up all names at the same time; return a result for each lookup, in order.

    All resolvers of a lookup are queried at once. The first one in the list that neither fails nor
    stays silent decides. A resolver that stays silent counts as failed only if `control` gets a
    reply afterwards. `control` is a lookup that must succeed; if it fails, `WorldSilent` is raised.
    """
    silent = False
    found: list[list[_Answer | None]] = []
    # Building or parsing a message costs more than sending it, and many differ only in the id.
    # With equal ids a server that replies to several queries could confuse them.
    made, read = cache(_message), cache(dns.message.from_wire)
    ids = random.sample(range(1 << 16), _MAX_NAMESERVERS * len(lookups))
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for lookup in lookups:
            found.append([])
            for server in nameservers(lookup.resolv_conf):
                message, words = made(lookup.name, lookup.family)
                own = ids.pop().to_bytes(_ID)
                try:
                    opened = stack.enter_context(_send(lookup.space, server, own + words[_ID:]))
                except OSError as error:
                    found[-1].append(_failed(server, f"cannot be queried: {error.strerror}"))
                    continue
                query = _Query(opened, server, own, message, found[-1], len(found[-1]))
                selector.register(opened, selectors.EVENT_READ, query)
                found[-1].append(None)
        deadline = time.monotonic() + ANSWER_BOUND
        while any(_verdict(answers) is None for answers in found):
            left = deadline - time.monotonic()
            if left <= 0:
                silent = True
                break
            for key, _ in selector.select(left):
                query = key.data
                query.answers[query.rank] = _read(query, read)
                selector.unregister(query.socket)
        for key in selector.get_map().values():
            query = key.data
            reason = f"did not reply within {ANSWER_BOUND} s"
            query.answers[query.rank] = _failed(query.server, reason)
    if silent and control is not None and resolve([control])[0].address is None:
        raise WorldSilent(
            f"no resolver replied within {ANSWER_BOUND} s, nor did the world's own, queried "
            "from a netns beside it: this machine is too busy for a verdict; run with fewer workers"
        )
    return [_verdict(answers) or _NO_RESOLVER for answers in found]


class _Query(NamedTuple):
    """A DNS query in flight, and the list that receives its result."""

    socket: socket.socket
    server: Address
    id: bytes
    message: dns.message.Message
    answers: list[_Answer | None]
    rank: int


class _Answer(NamedTuple):
    """Result from one resolver; if it is not `final`, the result of the next resolver counts."""

    result: Resolved
    final: bool


_NO_RESOLVER: Final = Resolved(None, "resolv.conf names no resolver")


def _failed(server: Address, reason: str) -> _Answer:
    return _Answer(Resolved(None, f"{server} {reason}"), final=False)


def _verdict(answers: Sequence[_Answer | None]) -> Resolved | None:
    """Return the result of a lookup, or `None` while it depends on a resolver without a reply."""
    result = _NO_RESOLVER
    for answer in answers:
        if answer is None:
            return None
        result = answer.result
        if answer.final:
            break
    return result


def _message(name: str, family: Family) -> tuple[dns.message.Message, bytes]:
    query = dns.message.make_query(name, _TYPES[family])
    return query, query.to_wire()


def _send(space: NetNS, server: Address, query: bytes) -> socket.socket:
    opened = space.socket(ADDRESS_FAMILIES[server.version], socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.connect((str(server), _PORT))
        opened.send(query)
    except BaseException:
        opened.close()
        raise
    return opened


def _read(query: _Query, read: Callable[[bytes], dns.message.Message]) -> _Answer:
    server = query.server
    try:
        words = query.socket.recv(_LONGEST)
        answer = read(query.message.id.to_bytes(_ID) + words[_ID:])
    except OSError as error:
        return _failed(server, f"cannot be reached: {error.strerror}")
    except dns.exception.DNSException as error:
        return _failed(server, f"sent a malformed DNS message: {error}")
    if words[:_ID] != query.id or not query.message.is_response(answer):
        return _failed(server, "replied to another query")
    code = answer.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return _failed(server, f"replied {dns.rcode.to_text(code)}")
    for rrset in answer.answer:
        if rrset.rdtype == query.message.question[0].rdtype:
            return _Answer(Resolved(ip_address(rrset[0].address)), final=True)
    reason = "no address" if code == dns.rcode.NOERROR else dns.rcode.to_text(code)
    return _Answer(Resolved(None, f"{server} replied {reason}"), final=True)
