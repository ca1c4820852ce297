"""Tests of connection tracking: flows that are listed, watched and deleted."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from threading import Thread

import pytest

from linux import netns
from linux.conntrack import Conntrack, Flow, FlowWatch, port_mark, protocol_mark
from linux.netlink import attr, be32, nest, text
from linux.netns import NetNS
from linux.nftables import (
    PROTOCOLS,
    Nft,
    Table,
    add_chain,
    add_rule,
    add_table,
    daddr,
    del_table,
    dnat,
    dport,
    l4proto,
)
from tests.linux.star_topology import SHARED, Star

TABLE = Table("inet", "test")
PORT = 7000
WITHIN = 10.0
"""Time limit in seconds for the arrival of a packet, on the slowest machine."""
FAMILIES = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture
def tracked(star: Star) -> Iterator[Conntrack]:
    """Open the connection tracking table of the router."""
    with Conntrack(star.router) as opened:
        yield opened


def divert(rules: Nft, star: Star, family: int, number: int) -> None:
    """Redirect packets for the shared address to a host by dnat."""
    shared = ip_network(SHARED[family])
    to = dnat(star.address(number, family))
    rules.apply(
        [
            add_table(TABLE),
            del_table(TABLE),
            add_table(TABLE),
            add_chain(TABLE, "nat", hook="prerouting", priority=-100, kind="nat"),
            add_rule(TABLE, "nat", daddr(shared), l4proto("udp"), dport(PORT), to),
        ]
    )


def udp(space: NetNS, family: int, *, port: int = 0) -> socket.socket:
    """Open a UDP socket in a host."""
    opened = space.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    opened.bind(("", port))
    opened.settimeout(WITHIN)
    return opened


def towards(tracked: Conntrack, port: int) -> list[Flow]:
    """Return the UDP flows whose first packet went to a port."""
    udp_port = (PROTOCOLS["udp"], port)
    return [
        flow
        for flow in tracked.all()
        if (flow.original.protocol, flow.original.destination_port) == udp_port
    ]


@FAMILIES
def test_flow_has_original_and_reply_tuple(
    star: Star, rules: Nft, tracked: Conntrack, family: int
) -> None:
    """A flow has the addresses and ports of both directions, which differ after dnat."""
    before = tracked.count()
    divert(rules, star, family, 1)
    with udp(star.client, family) as client, udp(star.first, family, port=PORT) as server:
        client.sendto(b"hello", (SHARED[family], PORT))
        assert server.recv(16) == b"hello"
        own, translated = star.address(0, family), star.address(1, family)
        (flow,) = towards(tracked, PORT)
        ports = client.getsockname()[1], PORT
        assert flow.original == (own, ip_address(SHARED[family]), PROTOCOLS["udp"], *ports)
        assert (flow.reply.source, flow.reply.destination) == (translated, own)
        assert flow.addresses == {own, ip_address(SHARED[family]), translated}
        assert tracked.count() > before
    assert towards(tracked, PORT + 1) == []


@FAMILIES
def test_deleted_flow_gets_the_current_nat_rule(
    star: Star, rules: Nft, tracked: Conntrack, family: int
) -> None:
    """Packets of a socket keep their dnat until the flow is deleted.

    After that, the current rule applies.
    """
    with (
        udp(star.client, family) as client,
        udp(star.first, family, port=PORT) as first,
        udp(star.second, family, port=PORT) as second,
    ):
        divert(rules, star, family, 1)
        client.sendto(b"1", (SHARED[family], PORT))
        assert first.recv(16) == b"1"
        divert(rules, star, family, 2)
        client.sendto(b"2", (SHARED[family], PORT))
        assert first.recv(16) == b"2"
        flows = towards(tracked, PORT)
        for _ in range(2):  # a missing flow is no failure
            tracked.forget(flows)
        client.sendto(b"3", (SHARED[family], PORT))
        assert second.recv(16) == b"3"


def test_flow_in_a_conntrack_zone_is_found_and_deleted(
    star: Star, rules: Nft, tracked: Conntrack
) -> None:
    """A flow in a conntrack zone is found and deleted.

    A request names a flow with its zone, because addresses in different zones may be equal.
    """
    divert(rules, star, 4, 1)
    rules.apply(
        [
            add_chain(TABLE, "zones", hook="prerouting", priority=-300),
            add_rule(TABLE, "zones", in_zone(7)),
        ]
    )
    with udp(star.client, 4) as client:
        client.sendto(b"hello", (SHARED[4], PORT))
        (body,) = tracked.raw()
        assert tracked.has(body)
        tracked.forget(towards(tracked, PORT))
        assert towards(tracked, PORT) == []
        assert not tracked.has(body)


def in_zone(number: int) -> list[bytes]:
    """Return nft expressions that put a connection into a conntrack zone (NFT_CT_ZONE)."""
    value = nest(2, attr(1, struct.pack("=H", number)))
    load = nest(1, text(1, "immediate"), nest(2, be32(1, 1), value))
    return [load, nest(1, text(1, "ct"), nest(2, be32(4, 1), be32(2, 17)))]


@FAMILIES
def test_marked_returns_only_matching_flows(
    star: Star, rules: Nft, tracked: Conntrack, family: int
) -> None:
    """`marked` returns only flows with a matching address, port or protocol.

    The address may be of either direction. Other flows are not decoded.
    """
    divert(rules, star, family, 1)
    with udp(star.client, family) as client, udp(star.first, family, port=PORT) as server:
        client.sendto(b"hello", (SHARED[family], PORT))
        assert server.recv(16) == b"hello"
    (flow,) = towards(tracked, PORT)
    for mark in (
        ip_address(SHARED[family]).packed,
        star.address(1, family).packed,
        port_mark(PORT),
        protocol_mark(PROTOCOLS["udp"]),
    ):
        assert flow in tracked.marked(b"\xffnowhere", mark)
    assert flow not in tracked.marked(port_mark(PORT + 1), ip_address("192.0.2.99").packed)
    assert tracked.marked() == []


EVENTS = "net.netfilter.nf_conntrack_events"


@pytest.fixture
def watch(star: Star) -> Iterator[FlowWatch]:
    """Watch the router's flows."""
    with FlowWatch(star.router) as opened:
        yield opened


def begin_flow(star: Star, rules: Nft, family: int = 4, *, to: int = 1) -> None:
    """Send a datagram through the router to a host by the shared address, which begins a flow."""
    divert(rules, star, family, to)
    host = {1: star.first, 2: star.second}[to]
    with udp(star.client, family) as client, udp(host, family, port=PORT) as server:
        client.sendto(b"hello", (SHARED[family], PORT))
        assert server.recv(16) == b"hello"


def forget_all(star: Star) -> None:
    """Delete all flows of the router."""
    with Conntrack(star.router) as conntrack:
        conntrack.forget(conntrack.all())


@FAMILIES
def test_watch_lists_a_flow_until_its_deletion(
    star: Star, rules: Nft, watch: FlowWatch, family: int
) -> None:
    """A watch lists a flow until the flow is deleted.

    It finds the flow by each address, before and after translation.
    """
    marks = [star.address(number, family).packed for number in (0, 1)]
    assert not watch.marked(*marks)
    begin_flow(star, rules, family)
    assert all(watch.marked(mark) for mark in marks)
    assert not watch.marked(star.address(2, family).packed)
    assert not watch.marked()
    forget_all(star)
    assert not any(watch.marked(mark) for mark in marks)


def test_watch_lists_a_flow_that_began_before_the_watch(star: Star, rules: Nft) -> None:
    """A watch lists a flow that began before the watch.

    It notices the flow's end without an event, although another flow begins without an event.
    """
    begin_flow(star, rules)
    first, second = (star.address(number, 4).packed for number in (1, 2))
    with FlowWatch(star.router) as watch:
        assert watch.marked(first)
        netns.write_sysctls(star.router, {EVENTS: 0})
        forget_all(star)
        begin_flow(star, rules, to=2)
        assert not watch.marked(first)
        assert watch.marked(second)


def test_watch_lists_a_flow_that_begins_and_ends_without_events(
    star: Star, rules: Nft, watch: FlowWatch
) -> None:
    """A watch lists a flow that begins without an event, until it ends without an event.

    Without a begin event is, for example, a flow whose first packet a bridge floods to its host.
    """
    first, second = (star.address(number, 4).packed for number in (1, 2))
    assert not watch.marked(first)
    netns.write_sysctls(star.router, {EVENTS: 0})
    begin_flow(star, rules)
    assert watch.marked(first)
    forget_all(star)
    begin_flow(star, rules, to=2)
    assert not watch.marked(first)
    assert watch.marked(second)


def test_flow_that_ends_during_a_count_hides_no_other_flow(
    star: Star, rules: Nft, watch: FlowWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch counts flows to find those without an event.

    A flow that ends during the count does not hide another one.
    """
    begin_flow(star, rules)
    first = watch.marked(star.address(1, 4).packed)
    assert first
    netns.write_sysctls(star.router, {EVENTS: 0})
    begin_flow(star, rules, to=2)
    count = Conntrack.count

    def late(self: Conntrack) -> int:
        with Conntrack(star.router) as other:
            other.forget(first)
        return count(self)

    monkeypatch.setattr(Conntrack, "count", late)
    assert watch.marked(star.address(2, 4).packed)
    assert not watch.marked(star.address(1, 4).packed)


def test_flow_watch_is_thread_safe(star: Star, rules: Nft) -> None:
    """When several threads query a watch, each gets the reply to its own query."""
    begin_flow(star, rules)
    answers: list[int] = []
    first = star.address(1, 4).packed
    with FlowWatch(star.router) as watch:

        def query() -> None:
            answers.extend(len(watch.marked(first)) for _ in range(200))

        threads = [Thread(target=query, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN)
        assert answers == [1] * 800


def test_closed_flow_watch_raises(star: Star) -> None:
    """A query of a closed watch raises an error instead of waiting forever."""
    with FlowWatch(star.router) as watch:
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch.marked(star.address(1, 4).packed)


def test_watch_dumps_the_table_only_for_flows_without_events(
    star: Star, rules: Nft, watch: FlowWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch dumps the kernel's table only if there are flows without an event."""
    walked: list[Conntrack] = []
    raw = Conntrack.raw

    def counted(self: Conntrack) -> Iterator[bytes]:
        walked.append(self)
        return raw(self)

    monkeypatch.setattr(Conntrack, "raw", counted)
    begin_flow(star, rules)
    begin_flow(star, rules, to=2)
    assert watch.marked(star.address(1, 4).packed)
    with Conntrack(star.router) as conntrack:
        conntrack.forget(watch.marked(star.address(1, 4).packed))
    assert not watch.marked(star.address(1, 4).packed)
    assert watch.marked(star.address(2, 4).packed)
    assert not walked
    netns.write_sysctls(star.router, {EVENTS: 0})
    begin_flow(star, rules)
    assert watch.marked(star.address(1, 4).packed)
    assert walked


def test_watch_dumps_the_table_after_lost_events(star: Star, rules: Nft, watch: FlowWatch) -> None:
    """If events are lost (ENOBUFS), a watch dumps the table, so it misses no flow."""
    divert(rules, star, 4, 1)
    assert not watch.marked(star.address(1, 4).packed)
    with socket.socket(fileno=os.dup(watch.fileno())) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the smallest buffer: a few
    with star.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as many:
        for port in range(1024, 1024 + 100):
            many.sendto(b"x", (str(star.address(2, 4)), port))
    begin_flow(star, rules)
    assert watch.marked(star.address(1, 4).packed)
    forget_all(star)
    assert not watch.marked(star.address(1, 4).packed)


def test_watch_dumps_the_table_if_events_are_disabled(star: Star, rules: Nft) -> None:
    """A watch dumps the table if the sysctl nf_conntrack_events is 0."""
    netns.write_sysctls(star.router, {EVENTS: 0})
    with FlowWatch(star.router) as watch:
        begin_flow(star, rules)
        assert watch.marked(star.address(1, 4).packed)
        forget_all(star)
        assert not watch.marked(star.address(1, 4).packed)
