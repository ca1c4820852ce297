"""Asking for a name from inside: through the resolvers that a namespace is told to use.

All queries go out at once, each over a socket of its own namespace; dnspython
makes and reads the messages. A resolver is a process and not the kernel, so
here, and only here, silence is bounded by time.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

from harness.model import Family
from harness.topology import Address
from linux.netns import NetNS

ANSWER_BOUND: Final = 2.0
"""Seconds a resolver may take. The world's own takes a millisecond."""

_TYPES: Final = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}
_MAX_NAMESERVERS: Final = 3
"""How many a resolver looks at: MAXNS in resolv.conf(5)."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A name to look up from inside a namespace, by what its `resolv.conf` says."""

    space: NetNS
    resolv_conf: str
    name: str
    family: Family


@dataclass(frozen=True, slots=True)
class Resolved:
    """Address of a name, or `None` and the reason why there is none."""

    address: Address | None
    reason: str = ""


def nameservers(resolv_conf: str) -> list[Address]:
    """The resolvers a resolv.conf(5) names, in order."""
    found: list[Address] = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            found.append(ip_address(words[1].partition("%")[0]))
    return found[:_MAX_NAMESERVERS]


def resolve(lookups: Sequence[Lookup]) -> list[Resolved]:
    """Look all names up at once; an entry for each lookup, in order."""
    results: list[Resolved | None] = [None] * len(lookups)
    reasons: list[str] = ["resolv.conf names no resolver"] * len(lookups)
    waiting: dict[socket.socket, tuple[int, Address, int]] = {}
    try:
        for index, lookup in enumerate(lookups):
            for server in nameservers(lookup.resolv_conf):
                query = dns.message.make_query(lookup.name, _TYPES[lookup.family])
                try:
                    waiting[_asked(lookup.space, server, query)] = (index, server, query.id)
                    reasons[index] = f"{server} did not answer within {ANSWER_BOUND} s"
                except OSError as error:
                    reasons[index] = f"{server} cannot be asked: {error.strerror}"
        deadline = time.monotonic() + ANSWER_BOUND
        while any(results[index] is None for index, _, _ in waiting.values()):
            ready = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                break
            for opened in ready:
                index, server, number = waiting.pop(opened)
                answer = _answer(opened, number, lookups[index].family)
                opened.close()
                if answer.address is not None:
                    results[index] = answer
                else:
                    reasons[index] = f"{server}: {answer.reason}"
    finally:
        for opened in waiting:
            opened.close()
    return [
        result or Resolved(None, reason) for result, reason in zip(results, reasons, strict=True)
    ]


def _asked(space: NetNS, server: Address, query: dns.message.Message) -> socket.socket:
    family = socket.AF_INET if server.version == 4 else socket.AF_INET6
    opened = space.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.connect((str(server), 53))
        opened.send(query.to_wire())
    except BaseException:
        opened.close()
        raise
    return opened


def _answer(opened: socket.socket, number: int, family: Family) -> Resolved:
    try:
        message = dns.message.from_wire(opened.recv(4096))
    except OSError as error:
        return Resolved(None, os.strerror(error.errno or 0))
    except dns.exception.DNSException as error:
        return Resolved(None, f"sent something that is no DNS message: {error}")
    if message.id != number:
        return Resolved(None, "answered another question")
    if message.rcode() != dns.rcode.NOERROR:
        return Resolved(None, dns.rcode.to_text(message.rcode()))
    for rrset in message.answer:
        if rrset.rdtype == _TYPES[family]:
            return Resolved(ip_address(rrset[0].address))
    return Resolved(None, "no address in the answer")
