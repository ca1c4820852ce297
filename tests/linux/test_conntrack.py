"""Connection tracking: listed flows, and the effect of deleting one."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from linux.conntrack import PROTOCOLS, Conntrack, Flow, port_mark, protocol_mark
from linux.netlink import attr, be32, nest, text
from linux.netns import NetNS
from linux.nftables import (
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
"""Seconds in which a packet must arrive, on the slowest machine."""
FAMILIES = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture
def tracked(star: Star) -> Iterator[Conntrack]:
    """Open the flows of the router."""
    with Conntrack(star.router) as opened:
        yield opened


def divert(rules: Nft, star: Star, family: int, number: int) -> None:
    """Redirect packets for the shared address to a station, by dnat."""
    shared = ip_network(SHARED[family])
    to = dnat(star.station(number, family))
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
    """Open a datagram socket in a station."""
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
    """Addresses and ports of both directions are those of the packets, with dnat."""
    before = tracked.count()
    divert(rules, star, family, 1)
    with udp(star.asker, family) as asker, udp(star.first, family, port=PORT) as heard:
        asker.sendto(b"hello", (SHARED[family], PORT))
        assert heard.recv(16) == b"hello"
        own, translated = star.station(0, family), star.station(1, family)
        (flow,) = towards(tracked, PORT)
        assert flow.original == (
            own,
            ip_address(SHARED[family]),
            PROTOCOLS["udp"],
            asker.getsockname()[1],
            PORT,
        )
        assert (flow.reply.source, flow.reply.destination) == (translated, own)
        assert flow.addresses == {own, ip_address(SHARED[family]), translated}
        assert tracked.count() > before
    assert towards(tracked, PORT + 1) == []


@FAMILIES
def test_packet_after_forget_meets_the_current_nat_rule(
    star: Star, rules: Nft, tracked: Conntrack, family: int
) -> None:
    """A socket that goes on sending keeps its dnat until the flow is deleted."""
    with (
        udp(star.asker, family) as asker,
        udp(star.first, family, port=PORT) as first,
        udp(star.second, family, port=PORT) as second,
    ):
        divert(rules, star, family, 1)
        asker.sendto(b"1", (SHARED[family], PORT))
        assert first.recv(16) == b"1"
        divert(rules, star, family, 2)
        asker.sendto(b"2", (SHARED[family], PORT))
        assert first.recv(16) == b"2"
        tracked.forget(towards(tracked, PORT))
        asker.sendto(b"3", (SHARED[family], PORT))
        assert second.recv(16) == b"3"


def test_flow_in_a_conntrack_zone_is_found_and_forgotten(
    star: Star, rules: Nft, tracked: Conntrack
) -> None:
    """A request names a flow with its zone, as equal addresses may occur in several zones."""
    divert(rules, star, 4, 1)
    rules.apply(
        [
            add_chain(TABLE, "zones", hook="prerouting", priority=-300),
            add_rule(TABLE, "zones", in_zone(7)),
        ]
    )
    with udp(star.asker, 4) as asker:
        asker.sendto(b"hello", (SHARED[4], PORT))
        (body,) = tracked.raw()
        assert tracked.has(body)
        tracked.forget(towards(tracked, PORT))
        assert towards(tracked, PORT) == []
        assert not tracked.has(body)


def in_zone(number: int) -> list[bytes]:
    """Return expressions that put a connection into a zone: NFT_CT_ZONE of nf_tables.h."""
    value = nest(2, attr(1, struct.pack("=H", number)))
    load = nest(1, text(1, "immediate"), nest(2, be32(1, 1), value))
    return [load, nest(1, text(1, "ct"), nest(2, be32(4, 1), be32(2, 17)))]


@FAMILIES
def test_forget_deletes_only_the_named_flows(
    star: Star, rules: Nft, tracked: Conntrack, family: int
) -> None:
    """Another flow to the same port stays, and one that has just gone is no failure."""
    divert(rules, star, family, 1)
    with udp(star.asker, family) as one, udp(star.asker, family) as other:
        for asker in (one, other):
            asker.sendto(b"hello", (SHARED[family], PORT))
        flows = towards(tracked, PORT)
        ports = {flow.original.source_port: flow for flow in flows}
        assert set(ports) == {one.getsockname()[1], other.getsockname()[1]}
        for _ in range(2):
            tracked.forget([ports[one.getsockname()[1]]])
        (left,) = towards(tracked, PORT)
        assert left == ports[other.getsockname()[1]]


@FAMILIES
def test_marked_decodes_only_matching_flows(
    star: Star, rules: Nft, tracked: Conntrack, family: int
) -> None:
    """A mark is an address of either direction, a port or a protocol."""
    divert(rules, star, family, 1)
    with udp(star.asker, family) as asker, udp(star.first, family, port=PORT) as heard:
        asker.sendto(b"hello", (SHARED[family], PORT))
        assert heard.recv(16) == b"hello"
    (flow,) = towards(tracked, PORT)
    for mark in (
        ip_address(SHARED[family]).packed,
        star.station(1, family).packed,
        port_mark(PORT),
        protocol_mark(PROTOCOLS["udp"]),
    ):
        assert flow in tracked.marked(b"\xffnowhere", mark)
    assert flow not in tracked.marked(port_mark(PORT + 1), ip_address("192.0.2.99").packed)
    assert tracked.marked() == []
