"""TTL and hop limit: each router takes one, and the one that takes the last says so."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply

from harness.model.plan import ATTACKER, GATEWAY, HOST, INTERNET, NS1, PROTOCOLS, Protocol, cells
from harness.model.topology import START_TTL, Address, pick
from harness.plugin.marks import requirement
from harness.world.service_protocols import TCP_PORTS
from suites.support.three_containers import ThreeContainers

IDENTIFIER = 31041
"""The source port of what is sent, or its echo identifier."""
PORT = TCP_PORTS["echo"]
ECHO_REPLY = {4: ICMP(type=0), 6: ICMPv6EchoReply()}


@requirement("BR-19")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("target", [NS1, ATTACKER, INTERNET])
def test_a_ttl_of_1_ends_at_the_bridge(
    trio: ThreeContainers, target: str, protocol: Protocol
) -> None:
    """The bridge's address answers with time-exceeded and quotes what it was sent."""
    with (
        trio.capture("a", target) as wire,
        trio.call("a", target, protocol, port=PORT, own_port=IDENTIFIER, ttl=1) as call,
    ):
        call.say()
        trio.settle()
        assert call.told() == "ttl-exceeded"
    sent = trio.request(protocol, sport=IDENTIFIER, dport=PORT)
    asked = trio.ip("a", target, ttl=1) / sent
    wire.expect_one_each(
        trio.ip(GATEWAY, "a", ttl=START_TTL) / trio.error("ttl-exceeded") / asked,
        to=asked,
        at=trio.at("a"),
    )
    wire.expect_none(trio.ip(HOST), trio.ip("a"), at=trio.at(target))


@requirement("BR-19", "BR-21")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_router_takes_one(trio: ThreeContainers, protocol: Protocol) -> None:
    """With each TTL more it gets one router further, and that one's own address tells so."""
    chain = hops(trio)
    sent = trio.request(protocol, sport=IDENTIFIER, dport=PORT)
    for ttl, hop in enumerate(chain, 1):
        with (
            trio.capture("a", INTERNET) as wire,
            trio.call("a", INTERNET, protocol, port=PORT, own_port=IDENTIFIER, ttl=ttl) as call,
        ):
            call.say()
            trio.settle()
            assert call.told() == "ttl-exceeded", f"with TTL {ttl}"
        left = START_TTL - ttl + 1
        wire.expect_one_each(
            trio.ip(hop, "a", ttl=left)
            / trio.error("ttl-exceeded")
            / trio.ip("a", INTERNET, ttl=1)
            / sent,
            to=trio.ip("a", INTERNET, ttl=ttl) / sent,
            at=trio.at("a"),
        )
        wire.expect_none(trio.ip(HOST, INTERNET), at=trio.at(INTERNET))


@requirement("BR-19", "BR-7")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_with_one_more_than_there_are_routers_it_arrives(
    trio: ThreeContainers, protocol: Protocol
) -> None:
    """It reaches the internet with TTL 1, from the host's address, and is answered."""
    enough = len(hops(trio)) + 1
    with (
        trio.capture(INTERNET) as wire,
        trio.call("a", INTERNET, protocol, port=PORT, own_port=IDENTIFIER, ttl=enough) as call,
    ):
        call.say(b"far enough")
        heard = call.hear()
        assert heard == b"far enough" if protocol is Protocol.ICMP else b'"me": "internet"' in heard
    arrived = trio.ip(HOST, INTERNET, ttl=1)
    assert wire.matching(arrived / trio.request(protocol, sport=(1, 65535), dport=PORT))
    wire.expect_none(trio.ip("a"))


@requirement("BR-4", "BR-5", "BR-6", "BR-7")
def test_every_answer_has_what_the_routers_leave(trio: ThreeContainers) -> None:
    """To a datagram and a call as to a ping, when it comes to the container's own interface."""
    routers = {"b": 0, GATEWAY: 0, HOST: 0, NS1: 1, INTERNET: len(hops(trio))}
    with trio.capture("a") as wire:
        trio.scene.observed(list(cells(("a",), tuple(routers), families=(trio.family,))))
    for target, count in routers.items():
        for answer in (ECHO_REPLY[trio.family], UDP(), TCP()):
            seen = wire.matching(trio.ip(target, "a") / answer)
            assert seen
            assert wire.matching(trio.ip(target, "a", ttl=START_TTL - count) / answer) == seen


def hops(trio: ThreeContainers) -> list[Address]:
    """The routers' own addresses on the way to the internet, as they answer a container."""
    topology = trio.scene.world.topology
    links = (topology.link(number)[1] for number in range(1, topology.routers))
    chain = (topology.lan_gateway, *links)
    return [trio.address(GATEWAY), *(pick(near, trio.family).ip for near in chain)]
