"""Unicast frames, which reach one receiver only, and the MTU of a network's links."""

from __future__ import annotations

import errno
import os
from itertools import permutations

import pytest

from harness.model.plan import GATEWAY, HOST, INTERNET, PROTOCOLS, Protocol, cells
from harness.plugin.marks import requirement
from harness.probe.remote import by_kernel
from linux import rtnetlink_dump
from linux.netlink import Netlink
from suites.support.three_containers import NAMES, ThreeContainers

OWN_PORT = 31047
ETHERNET = 14
"""Length of an Ethernet header in bytes."""
HEADERS = {4: 20 + 8, 6: 40 + 8}
"""Length of an IP and a UDP header in bytes."""

AGEING = 300
"""Seconds after which a bridge forgets a MAC that sends nothing (IEEE 802.1Q, 8.8.3)."""


@requirement("BR-13")
def test_container_receives_no_unicast_frame_of_its_peers(trio: ThreeContainers) -> None:
    """A container receives no unicast frame that a peer exchanges with another target.

    The targets are another peer, the host and the internet.
    """
    two = [
        *cells(("a",), ("b", GATEWAY, HOST, INTERNET), families=(trio.family,)),
        *cells(("b",), ("a", GATEWAY), families=(trio.family,)),
        *cells((HOST,), ("a", "b"), families=(trio.family,)),
    ]
    third = cells(("c",), (GATEWAY,), (Protocol.ICMP,), (trio.family,))
    with trio.capture("a", "b", "c") as wire:
        trio.scene.observed([*two, *third])
    for protocol in PROTOCOLS:
        request = trio.request(protocol, sport=(0, 65535), dport=(0, 65535))
        assert wire.matching(trio.ip("a", "b") / request, at=trio.at("b"))
    assert wire.matching(trio.ip("c", GATEWAY), at=trio.at("c"))
    for source, target in permutations(("a", "b", GATEWAY, HOST, INTERNET), 2):
        wire.expect_none(trio.ip(source, target), at=trio.at("c"))


@requirement("BR-13")
def test_bridge_keeps_forwarding_entries_for_300_seconds(trio: ThreeContainers) -> None:
    """A bridge keeps its forwarding entries for 300 s, the standard ageing time.

    With a shorter time, the bridge would flood unicast frames after a pause.
    """
    with trio.netns(GATEWAY).open() as space, Netlink(by_kernel(space)) as netlink:
        assert rtnetlink_dump.ageing(netlink, trio.bridge) >= AGEING


@requirement("BR-12")
def test_every_link_of_network_has_the_declared_mtu(trio: ThreeContainers) -> None:
    """The bridge and both ends of each veth pair have the MTU that the runtime declares.

    The declared MTU is a number of bytes, or the MTU of the host's uplink.
    """
    host = trio.netns(HOST).links()
    declared = trio.scene.runtime.dialect.mtu
    wanted = host["eth0"].mtu if declared == "inherit" else declared
    by_index = {link.ifindex: link for link in host.values()}
    inside = [trio.netns(name).links()["eth0"] for name in NAMES]
    outside = [by_index[link.peer or 0] for link in inside]
    every = [*inside, *outside, host[trio.bridge]]  # the interfaces inside share one name
    assert [(link.name, link.mtu) for link in every] == [(link.name, wanted) for link in every]


@requirement("BR-12")
@pytest.mark.parametrize("target", ["b", GATEWAY])
def test_frame_of_mtu_size_arrives_unfragmented(trio: ThreeContainers, target: str) -> None:
    """A packet of MTU size arrives unfragmented, and the sender's kernel refuses a larger one."""
    mtu = trio.netns("a").links()["eth0"].mtu
    largest = bytes(mtu - HEADERS[trio.family])
    with (
        trio.capture("a", target) as wire,
        trio.client("a", target, Protocol.UDP, port=9, own_port=OWN_PORT, whole=True) as call,
    ):
        call.send(largest)
        trio.settle()
        assert call.error() in ("", "port-unreachable")
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            call.send(largest + b"x")
    sent = trio.ip("a", target) / trio.request(Protocol.UDP, sport=OWN_PORT, dport=9)
    assert wire.expect_one(sent, at=trio.at(target)).length == ETHERNET + mtu
