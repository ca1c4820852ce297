"""Broadcasts and multicasts, which must not leave the bridge on which they are sent."""

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
from harness.probe.sockets import ADDRESS_FAMILIES
from harness.testbench.container import Container
from harness.testbench.listener import Listener
from harness.testbench.packets.craft import GROUPS, mac_of, member, send_frame, send_packet
from suites.support.three_containers import NAMES, ThreeContainers

PORT: Final = 31048
TO_PEERS, FROM_OUTSIDE, TO_STRANGERS = 31052, 31053, 31054
"""Source port of each test's packets.

The kernel translates all packets of a flow as the first one. With an equal source port, a packet of
a container that has a removed container's address would belong to the old flow.
"""
CONTROL: Final = "for you alone"
OUTSIDE: Final = (HOST, NS1, NS2, ATTACKER, INTERNET)


@requirement("BR-17")
def test_container_broadcasts_and_multicasts_reach_only_peers(trio: ThreeContainers) -> None:
    """A container's broadcasts and multicasts reach its peers on the bridge and no other target."""
    groups = everybody(trio)
    with trio.capture("b", "c", *OUTSIDE) as wire, contextlib.ExitStack() as stack:
        for group in groups:
            for name in ("b", "c"):
                stack.enter_context(member(trio.netns(name), group))
        broadcast(trio, "a", groups, by=TO_PEERS)
        tell(trio, OUTSIDE[1:])
    for group in groups:
        for name in ("b", "c"):
            wire.expect_one(trio.ip("a", group) / said(f"to {group}"), at=trio.at(name))
    for name in OUTSIDE:
        assert wire.matching(said(CONTROL), at=trio.at(name))
        wire.expect_none(*(said(f"to {group}") for group in groups), at=trio.at(name))


@requirement("BR-17")
def test_unprivileged_broadcast_reaches_all_peers(trio: ThreeContainers) -> None:
    """A broadcast that a container sends by a socket without privileges reaches all peers.

    The destination is the broadcast address of the link or of the subnet, or the all-nodes group.
    """
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(Listener(trio.netns(name), "udp", family=trio.family, port=PORT))
            for name in ("b", "c")
        ]
        kind = ADDRESS_FAMILIES[trio.family]
        caller = stack.enter_context(trio.netns("a").socket(kind, socket.SOCK_DGRAM))
        if trio.family == 4:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        else:
            index = trio.netns("a").links()[trio.link("a")].ifindex
            caller.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        for everyone in (GROUPS[trio.family][0], *directed(trio)):
            word = f"to {everyone}, all peers".encode()
            caller.sendto(word, (str(everyone), PORT))
            assert [listener.receive()[0] for listener in listeners] == [word] * len(listeners)


@requirement("BR-17")
@pytest.mark.parametrize(("outsider", "neighbour"), [(NS1, NS2), (ATTACKER, HOST)])
def test_broadcasts_of_outsiders_reach_no_container(
    trio: ThreeContainers, outsider: str, neighbour: str
) -> None:
    """Broadcasts and multicasts of outsiders reach no container.

    The same is true for a directed broadcast that an outsider sends through the host.
    """
    groups = everybody(trio)
    with trio.capture(*NAMES, neighbour, HOST) as wire:
        broadcast(trio, outsider, groups, by=FROM_OUTSIDE)
        for address in directed(trio):
            routed = trio.ip(outsider, address, ttl=START_TTL) / said("by way of the host")
            send_packet(trio.netns(outsider), routed)
        tell(trio, NAMES)
    for group in groups:
        assert wire.matching(trio.ip(outsider, group), at=trio.at(neighbour))
    for name in NAMES:
        wire.expect_one(trio.ip(dst=name) / said(CONTROL), at=trio.at(name))
        wire.expect_none(trio.ip(outsider), at=trio.at(name))


@requirement("BR-17", "NET-2")
@pytest.mark.parametrize(("one", "other"), [("a", "d"), ("d", "a")])
def test_broadcasts_do_not_reach_other_networks(
    trio: ThreeContainers, other_network_container: Container, one: str, other: str
) -> None:
    """Broadcasts of a container reach no container on another network of the same host."""
    groups = everybody(trio)
    with trio.capture(one, other) as wire, contextlib.ExitStack() as stack:
        for group in groups:
            stack.enter_context(member(trio.netns(other), group))
        broadcast(trio, one, groups, by=TO_STRANGERS)
        tell(trio, (other,))
    for group in groups:
        wire.expect_one(said(f"to {group}"), at=trio.at(one))
    wire.expect_one(trio.ip(dst=other) / said(CONTROL), at=trio.at(other))
    wire.expect_none(trio.ip(one), at=trio.at(other))


def everybody(trio: ThreeContainers) -> list[Address]:
    """Return the multicast groups, and the broadcast address of the containers' subnet."""
    return [*GROUPS[trio.family], *directed(trio)]


def directed(trio: ThreeContainers) -> list[Address]:
    """Return the broadcast address of the containers' subnet; IPv6 has none."""
    gateways = trio.scene.runtime.network_facts(trio.network).gateways
    return [item.network.broadcast_address for item in gateways if item.version == trio.family == 4]


def broadcast(trio: ThreeContainers, name: str, groups: Iterable[Address], *, by: int) -> None:
    """Send a different payload to each group from `eth0`, with a TTL that survives routers.

    `by` is the UDP source port.
    """
    mac = trio.mac(name)
    send_frame(
        trio.netns(name),
        *(
            Ether(src=mac, dst=mac_of(group))
            / trio.ip(name, group, ttl=START_TTL)
            / said(f"to {group}", by=by)
            for group in groups
        ),
    )


def tell(trio: ThreeContainers, names: Iterable[str]) -> None:
    """Send a control packet from the host to each name, so that its capture is not empty."""
    for name in names:
        with trio.client(HOST, name, Protocol.UDP, port=PORT) as call:
            call.send(CONTROL.encode())


def said(word: str, *, by: int | None = None) -> Packet:
    """Return a UDP datagram with a word as payload, from any source port or from port `by`."""
    head = UDP(dport=PORT) if by is None else UDP(sport=by, dport=PORT)
    return head / word.encode()
