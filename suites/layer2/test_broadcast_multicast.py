"""How far a broadcast and a multicast reach: to the peers on the bridge, and no further."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from typing import Final

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, NS2, Protocol
from harness.model.topology import START_TTL, Address
from harness.plugin.marks import requirement
from harness.testbench.container import Container
from harness.testbench.listener import Listener
from harness.testbench.packets.craft import GROUPS, mac_of, member, send_frame, send_packet
from suites.support.three_containers import NAMES, ThreeContainers

PORT: Final = 31048
TO_PEERS, FROM_OUTSIDE, TO_STRANGERS = 31052, 31053, 31054
"""Whence each test shouts: the kernel goes on to translate a flow as it did when that began, and
with the address of who is gone somebody else would be in it."""
CONTROL: Final = "for you alone"
OUTSIDE: Final = (HOST, NS1, NS2, ATTACKER, INTERNET)


@requirement("BR-17")
def test_what_a_container_says_to_all_reaches_its_peers_alone(trio: ThreeContainers) -> None:
    """They hear broadcasts and the groups that they belong to; beyond the bridge nobody does."""
    groups = everybody(trio)
    with trio.capture("b", "c", *OUTSIDE) as wire, contextlib.ExitStack() as stack:
        for group in groups:
            for name in ("b", "c"):
                stack.enter_context(member(trio.place(name), group))
        shout(trio, "a", groups, by=TO_PEERS)
        tell(trio, OUTSIDE[1:])
    for group in groups:
        for name in ("b", "c"):
            wire.expect_one(trio.ip("a", group) / said(f"to {group}"), at=trio.at(name))
    for name in OUTSIDE:
        assert wire.matching(said(CONTROL), at=trio.at(name))
        wire.expect_none(*(said(f"to {group}") for group in groups), at=trio.at(name))


@requirement("BR-17")
def test_an_ordinary_socket_reaches_all_peers(trio: ThreeContainers) -> None:
    """Without privileges, by the broadcast of the link or subnet, or the group of all nodes."""
    with contextlib.ExitStack() as stack:
        ears = [
            stack.enter_context(Listener(trio.place(name), "udp", family=trio.family, port=PORT))
            for name in ("b", "c")
        ]
        kind = socket.AF_INET if trio.family == 4 else socket.AF_INET6
        caller = stack.enter_context(trio.place("a").socket(kind, socket.SOCK_DGRAM))
        if trio.family == 4:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        else:
            index = trio.place("a").links()[trio.link("a")].ifindex
            caller.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        for everyone in (GROUPS[trio.family][0], *directed(trio)):
            word = f"to {everyone}, whom it may concern".encode()
            caller.sendto(word, (str(everyone), PORT))
            assert [ear.heard()[0] for ear in ears] == [word] * len(ears)


@requirement("BR-17")
@pytest.mark.parametrize(("outsider", "neighbour"), [(NS1, NS2), (ATTACKER, HOST)])
def test_what_is_said_to_all_outside_reaches_no_container(
    trio: ThreeContainers, outsider: str, neighbour: str
) -> None:
    """Nor does what an outsider sends by way of the host to the broadcast of their subnet."""
    groups = everybody(trio)
    with trio.capture(*NAMES, neighbour, HOST) as wire:
        shout(trio, outsider, groups, by=FROM_OUTSIDE)
        for address in directed(trio):
            routed = trio.ip(outsider, address, ttl=START_TTL) / said("by way of the host")
            send_packet(trio.place(outsider), routed)
        tell(trio, NAMES)
    for group in groups:
        assert wire.matching(trio.ip(outsider, group), at=trio.at(neighbour))
    for name in NAMES:
        wire.expect_one(trio.ip(dst=name) / said(CONTROL), at=trio.at(name))
        wire.expect_none(trio.ip(outsider), at=trio.at(name))


@requirement("BR-17", "NET-2")
@pytest.mark.parametrize(("one", "other"), [("a", "d"), ("d", "a")])
def test_what_is_said_to_all_stays_on_its_network(
    trio: ThreeContainers, stranger: Container, one: str, other: str
) -> None:
    """A container on another network of the same host hears none of it."""
    groups = everybody(trio)
    with trio.capture(one, other) as wire, contextlib.ExitStack() as stack:
        for group in groups:
            stack.enter_context(member(trio.place(other), group))
        shout(trio, one, groups, by=TO_STRANGERS)
        tell(trio, (other,))
    for group in groups:
        wire.expect_one(said(f"to {group}"), at=trio.at(one))
    wire.expect_one(trio.ip(dst=other) / said(CONTROL), at=trio.at(other))
    wire.expect_none(trio.ip(one), at=trio.at(other))


def everybody(trio: ThreeContainers) -> list[Address]:
    """The groups, and the broadcast address of the trio's subnet."""
    return [*GROUPS[trio.family], *directed(trio)]


def directed(trio: ThreeContainers) -> list[Address]:
    """The broadcast address of the trio's subnet; IPv6 has none."""
    gateways = trio.scene.runtime.network_facts(trio.network).gateways
    return [item.network.broadcast_address for item in gateways if item.version == trio.family == 4]


def shout(trio: ThreeContainers, who: str, groups: Iterable[Address], *, by: int) -> None:
    """Have somebody say a word of its own to each group, by `eth0`, with a TTL for far away.

    `by` is the port that it is said from.
    """
    mac = trio.mac(who)
    send_frame(
        trio.place(who),
        *(
            Ether(src=mac, dst=mac_of(group))
            / trio.ip(who, group, ttl=START_TTL)
            / said(f"to {group}", by=by)
            for group in groups
        ),
    )


def tell(trio: ThreeContainers, names: Iterable[str]) -> None:
    """Have the host say something to each of these, so that a tap that is deaf shows."""
    for name in names:
        with trio.call(HOST, name, Protocol.UDP, port=PORT) as call:
            call.say(CONTROL.encode())


def said(word: str, *, by: int | None = None) -> Packet:
    """A word in a datagram, from any port or from one."""
    head = UDP(dport=PORT) if by is None else UDP(sport=by, dport=PORT)
    return head / word.encode()
