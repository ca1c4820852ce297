"""What is for one is seen by one, and every link carries frames of the same size."""

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
"""Seconds after which a bridge forgets a MAC that is silent (IEEE 802.1Q, 8.8.3)."""


@requirement("BR-13")
def test_a_third_container_receives_nothing_of_two_others(trio: ThreeContainers) -> None:
    """Of what two send to each other, to the host and to the internet it sees no frame."""
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
def test_nor_does_it_once_two_others_have_paused(trio: ThreeContainers) -> None:
    """Where a container is the bridge remembers for as long as the standard has it."""
    with trio.place(GATEWAY).open() as space, Netlink(by_kernel(space)) as netlink:
        assert rtnetlink_dump.ageing(netlink, trio.bridge) >= AGEING


@requirement("BR-12")
def test_every_link_of_the_network_has_the_same_mtu(trio: ThreeContainers) -> None:
    """Both ends of each veth pair, and the bridge: the declared MTU, or the uplink's."""
    host = trio.place(HOST).links()
    declared = trio.scene.runtime.dialect.mtu
    wanted = host["eth0"].mtu if declared == "inherit" else declared
    by_index = {link.ifindex: link for link in host.values()}
    inside = [trio.place(name).links()["eth0"] for name in NAMES]
    outside = [by_index[link.peer or 0] for link in inside]
    every = [*inside, *outside, host[trio.bridge]]  # those inside all go by one name
    assert [(link.name, link.mtu) for link in every] == [(link.name, wanted) for link in every]


@requirement("BR-12")
@pytest.mark.parametrize("target", ["b", GATEWAY])
def test_a_frame_may_be_as_large_as_the_mtu(trio: ThreeContainers, target: str) -> None:
    """One of just that size arrives in one piece; the sender knows that it may be no larger."""
    mtu = trio.place("a").links()["eth0"].mtu
    largest = bytes(mtu - HEADERS[trio.family])
    with (
        trio.capture("a", target) as wire,
        trio.call("a", target, Protocol.UDP, port=9, own_port=OWN_PORT, whole=True) as call,
    ):
        call.say(largest)
        trio.settle()
        assert call.told() in ("", "port-unreachable")
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            call.say(largest + b"x")
    sent = trio.ip("a", target) / trio.request(Protocol.UDP, sport=OWN_PORT, dport=9)
    assert wire.expect_one(sent, at=trio.at(target)).length == ETHERNET + mtu
