"""TTL and hop limit, which each router decrements, and time-exceeded errors."""

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
"""Source port of the crafted packets, or their echo identifier."""
PORT = TCP_PORTS["echo"]
ECHO_REPLY = {4: ICMP(type=0), 6: ICMPv6EchoReply()}


@requirement("BR-19")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("target", [NS1, ATTACKER, INTERNET])
def test_bridge_returns_time_exceeded_for_packet_with_ttl_1(
    trio: ThreeContainers, target: str, protocol: Protocol
) -> None:
    """The bridge's address returns time-exceeded for a packet to another network with TTL 1."""
    with (
        trio.capture("a", target) as wire,
        trio.client("a", target, protocol, port=PORT, own_port=IDENTIFIER, ttl=1) as call,
    ):
        call.send()
        trio.settle()
        assert call.error() == "ttl-exceeded"
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
def test_each_router_decrements_the_ttl(trio: ThreeContainers, protocol: Protocol) -> None:
    """Each router on the way to the internet decrements the TTL and returns time-exceeded at 0."""
    chain = hops(trio)
    sent = trio.request(protocol, sport=IDENTIFIER, dport=PORT)
    for ttl, hop in enumerate(chain, 1):
        with (
            trio.capture("a", INTERNET) as wire,
            trio.client("a", INTERNET, protocol, port=PORT, own_port=IDENTIFIER, ttl=ttl) as call,
        ):
            call.send()
            trio.settle()
            assert call.error() == "ttl-exceeded", f"with TTL {ttl}"
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
def test_packet_with_sufficient_ttl_reaches_the_internet(
    trio: ThreeContainers, protocol: Protocol
) -> None:
    """A packet with just enough TTL reaches the internet with TTL 1 and the host's address."""
    enough = len(hops(trio)) + 1
    with (
        trio.capture(INTERNET) as wire,
        trio.client("a", INTERNET, protocol, port=PORT, own_port=IDENTIFIER, ttl=enough) as call,
    ):
        call.send(b"far enough")
        received = call.receive()
        assert (
            received == b"far enough"
            if protocol is Protocol.ICMP
            else b'"me": "internet"' in received
        )
    arrived = trio.ip(HOST, INTERNET, ttl=1)
    assert wire.matching(arrived / trio.request(protocol, sport=(1, 65535), dport=PORT))
    wire.expect_none(trio.ip("a"))


@requirement("BR-4", "BR-5", "BR-6", "BR-7")
def test_replies_to_container_have_ttl_64_minus_routers(trio: ThreeContainers) -> None:
    """ICMP, UDP and TCP replies have TTL 64 minus the routers on the way when they arrive."""
    routers = {"b": 0, GATEWAY: 0, HOST: 0, NS1: 1, INTERNET: len(hops(trio))}
    with trio.capture("a") as wire:
        trio.scene.observed(list(cells(("a",), tuple(routers), families=(trio.family,))))
    for target, count in routers.items():
        for answer in (ECHO_REPLY[trio.family], UDP(), TCP()):
            seen = wire.matching(trio.ip(target, "a") / answer)
            assert seen
            assert wire.matching(trio.ip(target, "a", ttl=START_TTL - count) / answer) == seen


def hops(trio: ThreeContainers) -> list[Address]:
    """Return the addresses of the routers to the internet, as a container's traceroute has them."""
    topology = trio.scene.world.topology
    links = (topology.link(number)[1] for number in range(1, topology.routers))
    chain = (topology.lan_gateway, *links)
    return [trio.address(GATEWAY), *(pick(near, trio.family).ip for near in chain)]
