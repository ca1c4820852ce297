"""Tests of DNS lookups in a netns, which return an address or the reason without one."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from queue import Queue

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model.plan import FAMILIES, Family
from harness.probe import resolver as names
from harness.probe.resolver import Lookup, Resolved, WorldSilent, nameservers, resolve
from harness.world.build import World
from linux.netns import NetNS
from tests.world.pair import pair

NAME = "www.example.com"
CLIENT, FIRST, SECOND, SIXTH = "192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8:5::2"
PATIENCE = 10.0
"""Seconds after which a resolver that receives no query gives up."""

Reply = Callable[[dns.message.Message], bytes]


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[NetNS, NetNS]]:
    """Create the netns of a client and that of a resolver with three addresses."""
    with pair(
        [f"{CLIENT}/24", "2001:db8:5::1/64"], [f"{FIRST}/24", f"{SECOND}/24", f"{SIXTH}/64"]
    ) as both:
        yield both


def answer(*records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Reply:
    """Return a DNS reply with a return code and these records, each `name type value`."""

    def make(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        for record in records:
            name, kind, value = record.split()
            response.answer.append(dns.rrset.from_text(name, 9, "IN", kind, value))
        return response.to_wire()

    return make


def another(query: dns.message.Message) -> bytes:
    """Return a DNS reply with the id of another query."""
    answer = dns.message.make_response(query)
    answer.id ^= 1
    return answer.to_wire()


GOOD, OTHER = answer(f"{NAME}. A 203.0.113.10"), answer(f"{NAME}. A 203.0.113.77")
NXDOMAIN = answer(rcode=dns.rcode.NXDOMAIN)
FAILS, REFUSED = answer(rcode=dns.rcode.SERVFAIL), answer(rcode=dns.rcode.REFUSED)


@contextmanager
def resolvers(space: NetNS, replies: dict[str, Reply | bytes | None]) -> Iterator[None]:
    """Run resolvers at these addresses, one reply function for each address.

    Each resolver replies to one query; `None` stays silent.
    """

    def serve(sock: socket.socket, reply: Reply | bytes | None) -> None:
        data, client = sock.recvfrom(4096)
        if reply is not None:
            made = reply if isinstance(reply, bytes) else reply(dns.message.from_wire(data))
            sock.sendto(made, client)

    with ThreadPoolExecutor(len(replies)) as executor:
        sockets = []
        for where, reply in replies.items():
            family = socket.AF_INET6 if ":" in where else socket.AF_INET
            sockets.append(space.socket(family, socket.SOCK_DGRAM))
            sockets[-1].bind((where, 53))
            sockets[-1].settimeout(PATIENCE)
            executor.submit(serve, sockets[-1], reply)
        yield
    for sock in sockets:
        sock.close()


def conf(*servers: str) -> str:
    """Return a resolv.conf with these resolvers."""
    return "".join(f"nameserver {server}\n" for server in servers)


def look_up(space: NetNS, *servers: str, family: Family = 4) -> Resolved:
    """Look up the name with these resolvers."""
    (found,) = resolve([Lookup(space, conf(*servers), NAME, family)])
    return found


# --- resolv.conf --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("# nameserver 192.0.2.9\nsearch example.com\n", []),
        ("nameserver 192.0.2.9", ["192.0.2.9"]),
        ("  nameserver\t2001:db8::1  # ours\n", ["2001:db8::1"]),
        ("nameserver fe80::1%eth0\n", ["fe80::1"]),
        ("nameserver\nnameserver nonsense\nnameserver 192.0.2.9\n", ["192.0.2.9"]),
        ("nameserver ::4\nnameserver ::3\nnameserver ::2\nnameserver ::1", ["::4", "::3", "::2"]),
    ],
)
def test_nameservers_are_read_in_order_from_resolv_conf(text: str, expected: list[str]) -> None:
    """The first three valid name servers in resolv.conf are read, in order.

    The C library does the same.
    """
    assert nameservers(text) == [ip_address(item) for item in expected]


@given(st.text())
def test_resolv_conf_parser_survives_arbitrary_text(text: str) -> None:
    """Any text of a resolv.conf parses into a list of resolvers, possibly empty."""
    assert len(nameservers(text)) <= 3
    assert nameservers("nameserver " + text.replace("\n", " ")) is not None


# --- in the world -------------------------------------------------------------------


def test_equal_dns_queries_are_built_and_parsed_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal DNS queries are built and parsed only once.

    This costs more than sending, and a matrix looks up one name often. Each namespace sends its
    query to the resolver in its resolv.conf, over IPv4 or IPv6.
    """
    counted: list[str] = []

    def counting(name: str) -> None:
        known = getattr(dns.message, name)

        def called(*args: object, **kwargs: object) -> object:
            counted.append(name)
            return known(*args, **kwargs)

        monkeypatch.setattr(dns.message, name, called)

    counting("make_query")
    counting("from_wire")
    lookups = [
        Lookup(world.namespaces[name], conf(str(resolver.ip)), NAME, family)
        for name in ("host", "ns1", "internet")
        for resolver in world.topology.resolver
        for family in FAMILIES
    ]
    found = resolve(lookups)
    assert found == [Resolved(world.address("internet", item.family)) for item in lookups]
    assert sorted(counted) == ["from_wire"] * 2 + ["make_query"] * 2


# --- replies ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "family", "expected"),
    [
        (GOOD, 4, "203.0.113.10"),
        (answer(f"{NAME}. AAAA 2001:db8:1::10"), 6, "2001:db8:1::10"),
        (answer(f"{NAME}. CNAME other.", "other. A 203.0.113.10"), 4, "203.0.113.10"),
        (answer(f"{NAME}. AAAA 2001:db8:1::10"), 4, f"{FIRST} replied no address"),
        (answer(), 4, f"{FIRST} replied no address"),
        (NXDOMAIN, 4, f"{FIRST} replied NXDOMAIN"),
        (FAILS, 4, f"{FIRST} replied SERVFAIL"),
        (another, 4, f"{FIRST} replied to another query"),
        (b"\xff" * 20, 4, f"{FIRST} sent a malformed DNS message: .+"),
        (b"", 4, f"{FIRST} sent a malformed DNS message: .+"),
    ],
)
def test_dns_reply_gives_an_address_or_a_reason(
    ends: tuple[NetNS, NetNS],
    reply: Reply | bytes,
    family: Family,
    expected: str,
) -> None:
    """From any DNS reply a lookup gets an address, or a reason why there is none."""
    client, server_space = ends
    with resolvers(server_space, {FIRST: reply}):
        found = look_up(client, FIRST, family=family)
    assert (found.address is None) == bool(found.reason)
    assert re.fullmatch(expected, found.reason or str(found.address))


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("198.51.100.1", "198.51.100.1 cannot be queried: Network is unreachable"),
        (FIRST, f"{FIRST} cannot be reached: Connection refused"),
        ("192.0.2.99", "192.0.2.99 did not reply within 0.1 s"),
    ],
)
def test_unreachable_resolver_is_named(
    ends: tuple[NetNS, NetNS], monkeypatch: pytest.MonkeyPatch, server: str, reason: str
) -> None:
    """A missing route, a missing server and a timeout are different reasons."""
    monkeypatch.setattr(names, "ANSWER_BOUND", 0.1 if "0.1 s" in reason else PATIENCE)
    assert look_up(ends[0], server) == Resolved(None, reason)


@pytest.mark.parametrize(
    ("order", "replies", "expected"),
    [
        ([FIRST, SECOND], {FIRST: GOOD, SECOND: OTHER}, "203.0.113.10"),
        ([SECOND, FIRST], {FIRST: GOOD, SECOND: OTHER}, "203.0.113.77"),
        ([FIRST, SECOND], {FIRST: FAILS, SECOND: OTHER}, "203.0.113.77"),
        ([FIRST, SECOND], {FIRST: b"junk", SECOND: OTHER}, "203.0.113.77"),
        ([FIRST, SECOND], {FIRST: None, SECOND: OTHER}, "203.0.113.77"),
        ([FIRST, SECOND], {FIRST: GOOD, SECOND: None}, "203.0.113.10"),
        ([FIRST, SIXTH], {FIRST: FAILS, SIXTH: OTHER}, "203.0.113.77"),
        (["198.51.100.1", SECOND], {SECOND: OTHER}, "203.0.113.77"),
        ([FIRST, SECOND], {FIRST: NXDOMAIN, SECOND: GOOD}, f"{FIRST} replied NXDOMAIN"),
        ([FIRST, SECOND], {FIRST: FAILS, SECOND: REFUSED}, f"{SECOND} replied REFUSED"),
    ],
)
def test_reply_of_the_first_resolver_counts(
    ends: tuple[NetNS, NetNS],
    monkeypatch: pytest.MonkeyPatch,
    order: list[str],
    replies: dict[str, Reply | bytes | None],
    expected: str,
) -> None:
    """The reply of the first resolver counts.

    The next resolver is queried if the first fails, is silent or unreachable, but not after
    NXDOMAIN.
    """
    # Only a silent first resolver takes so long; the second has to reply meanwhile.
    silent = replies.get(order[0], GOOD) is None
    monkeypatch.setattr(names, "ANSWER_BOUND", 1.0 if silent else PATIENCE)
    with resolvers(ends[1], replies):
        found = look_up(ends[0], *order)
    assert (found.reason or str(found.address)) == expected


def test_dns_reply_with_id_of_another_query_is_refused(ends: tuple[NetNS, NetNS]) -> None:
    """A DNS reply with the id of another query is refused, because ids of queries are unique."""
    ids: Queue[int] = Queue()

    def first(query: dns.message.Message) -> bytes:
        ids.put(query.id)
        return GOOD(query)

    def confused(query: dns.message.Message) -> bytes:
        answer = dns.message.from_wire(GOOD(query))
        answer.id = ids.get(timeout=PATIENCE)
        return answer.to_wire()

    with resolvers(ends[1], {FIRST: first, SECOND: confused}):
        found = resolve([Lookup(ends[0], conf(server), NAME, 4) for server in (FIRST, SECOND)])
    assert found[0].address is not None
    assert found[1] == Resolved(None, f"{SECOND} replied to another query")


def test_lookup_of_invalid_name_without_resolver_names_missing_resolver(
    ends: tuple[NetNS, NetNS],
) -> None:
    """If resolv.conf has no resolver, this is the reason, even for an invalid name.

    No query is built then.
    """
    found = resolve([Lookup(ends[0], "", "a..b", 4)])
    assert found == [Resolved(None, "resolv.conf names no resolver")]


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=60), header=st.booleans())
def test_lookup_survives_arbitrary_dns_reply(
    ends: tuple[NetNS, NetNS], data: bytes, *, header: bool
) -> None:
    """After any bytes from a resolver, even after a valid header, a lookup returns.

    Without an address it has a reason that begins with the resolver.
    """

    def reply(query: dns.message.Message) -> bytes:
        begin = dns.message.make_response(query).to_wire()
        return begin[:7] + data if header else data

    with resolvers(ends[1], {FIRST: reply}):
        found = look_up(ends[0], FIRST)
    assert found.address is not None or found.reason.startswith(FIRST)


def test_silent_resolver_of_the_world_is_a_harness_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the world's own resolver is silent, a lookup raises an error of the harness."""
    with World.build() as world:
        inside = world.namespaces["ns1"]
        resolver = str(world.topology.resolver[0].ip)
        lost = Lookup(inside, "nameserver 198.51.100.99\n", NAME, 4)
        control = Lookup(world.namespaces["internet"], f"nameserver {resolver}\n", NAME, 4)
        assert resolve([lost], control=control)[0].address is None
        os.kill(world.services.pid, signal.SIGSTOP)
        monkeypatch.setattr(names, "ANSWER_BOUND", 0.1)  # from here on no resolver replies in time
        try:
            with pytest.raises(WorldSilent, match="the world's own"):
                resolve([lost], control=control)
        finally:
            os.kill(world.services.pid, signal.SIGCONT)
