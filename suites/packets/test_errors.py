"""Port-unreachable, TCP resets, and ICMP errors about masqueraded flows."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP, UDP, UDPerror
from scapy.packet import Packet, Raw

from harness.model.plan import GATEWAY, HOST, INTERNET, NS1, PROTOCOLS, Protocol
from harness.model.topology import START_TTL
from harness.plugin.marks import requirement
from harness.testbench.listener import free_port
from harness.testbench.packets.capture import Capture
from harness.testbench.packets.craft import send_packet
from harness.world.service_protocols import TCP_PORTS
from suites.support.three_containers import ThreeContainers

OWN_PORT = 31042
"""Source port of the crafted packets, or their echo identifier."""
ANY_PORT = (1, 65535)
ECHO = TCP_PORTS["echo"]
KINDS = (
    "net-unreachable",
    "host-unreachable",
    "port-unreachable",
    "admin-prohibited",
    "ttl-exceeded",
)
PAIRS = [("a", "b"), ("a", GATEWAY), ("a", HOST), ("a", NS1), ("a", INTERNET), (GATEWAY, "a")]
"""Clients and targets. The host sends to a container from the bridge's address."""


@requirement("BR-20")
@pytest.mark.parametrize(("caller", "target"), PAIRS)
def test_closed_udp_port_returns_port_unreachable(
    trio: ThreeContainers, caller: str, target: str
) -> None:
    """A closed UDP port returns port-unreachable at once; the error quotes the datagram.

    The source of the error is the address to which the datagram was sent.
    """
    port = free_port(trio.netns(target), "udp")
    with (
        trio.capture("a") as wire,
        trio.client(caller, target, Protocol.UDP, port=port, own_port=OWN_PORT) as call,
    ):
        call.send(b"is anybody in?")
        trio.settle()
        assert call.error() == "port-unreachable"
    sent = UDP(sport=OWN_PORT, dport=port)
    wire.expect_one(trio.ip(caller, target) / sent / b"is anybody in?")
    wire.expect_one(
        trio.ip(target, caller) / trio.error("port-unreachable") / trio.ip(caller, target) / sent
    )


@requirement("BR-20")
@pytest.mark.parametrize(("caller", "target"), PAIRS)
def test_closed_tcp_port_returns_reset(trio: ThreeContainers, caller: str, target: str) -> None:
    """A closed TCP port returns a reset at once, from the address of the SYN, and nothing else."""
    port = free_port(trio.netns(target), "tcp")
    with (
        trio.capture("a") as wire,
        trio.client(caller, target, Protocol.TCP, port=port, own_port=OWN_PORT) as call,
    ):
        call.send()
        trio.settle()
        assert call.error() == "reset"
    wire.expect_only(
        trio.ip(caller, target) / TCP(sport=OWN_PORT, dport=port, flags="S"),
        trio.ip(target, caller) / TCP(sport=port, dport=OWN_PORT, flags="RA"),
    )


@requirement("BR-21")
def test_two_containers_with_equal_ports_receive_their_own_icmp_errors(
    trio: ThreeContainers,
) -> None:
    """Two containers that send from one source port to one closed port each get their own error."""
    port = free_port(trio.netns(INTERNET), "udp")
    options = {"port": port, "own_port": OWN_PORT}
    with (
        trio.capture("a", "b", "c", INTERNET) as wire,
        trio.client("a", INTERNET, Protocol.UDP, **options) as one,
        trio.client("b", INTERNET, Protocol.UDP, **options) as other,
    ):
        one.send(b"from a")
        other.send(b"from b")
        trio.settle()
        assert (one.error(), other.error()) == ("port-unreachable", "port-unreachable")
    error, unknown = trio.error("port-unreachable"), UDP(sport=ANY_PORT, dport=port)
    outside = wire.matching(trio.ip(INTERNET, HOST) / error / trio.ip(HOST, INTERNET) / unknown)
    assert len({frame.packet[UDPerror].sport for frame in outside}) == 2
    for name in ("a", "b"):
        quoted = trio.ip(name, INTERNET) / UDP(sport=OWN_PORT, dport=port)
        wire.expect_one(trio.ip(INTERNET, name) / error / quoted, at=trio.at(name))
    wire.expect_none(trio.ip(INTERNET, "c"), at=trio.at("c"))


@requirement("BR-21")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_icmp_errors_from_internet_are_translated_back(
    trio: ThreeContainers, protocol: Protocol
) -> None:
    """ICMP errors from the internet reach the container and quote its own address and port."""
    for number, kind in enumerate(KINDS):
        own_port = OWN_PORT + number
        with (
            trio.capture("a", "b", INTERNET) as wire,
            trio.client("a", INTERNET, protocol, port=ECHO, own_port=own_port) as call,
        ):
            call.send(b"quote me")
            call.receive()
            send_packet(trio.netns(INTERNET), about(trio, kind, arrived(trio, wire, protocol)))
        quoted = trio.ip("a", INTERNET) / trio.request(protocol, sport=own_port, dport=ECHO)
        expected = trio.ip(INTERNET, "a", ttl=left(trio)) / trio.error(kind) / quoted
        wire.expect_one(expected, at=trio.at("a"))
        wire.expect_none(trio.ip(INTERNET, "b"), at=trio.at("b"))


@requirement("BR-21")
def test_icmp_errors_about_unknown_flows_reach_no_container(trio: ThreeContainers) -> None:
    """ICMP errors that quote an unknown flow or an untranslated packet reach no container.

    The errors are sent to the host's address. They are also sent to the container's address, unless
    the runtime declares that outsiders reach it.
    """
    direct = trio.scene.runtime.dialect.direct(trio.family)
    addressed = (HOST,) if direct == "accept" else (HOST, "a")
    with (
        trio.capture("a", "b", "c", INTERNET, HOST) as wire,
        trio.client("a", INTERNET, Protocol.UDP, port=ECHO, own_port=OWN_PORT) as call,
    ):
        call.send(b"quote me")
        call.receive()
        original = trio.ip("a", INTERNET) / UDP(sport=OWN_PORT, dport=ECHO) / b"quote me"
        unknown = trio.ip(HOST, INTERNET) / UDP(sport=9, dport=ECHO) / b"nobody said this"
        genuine = about(trio, "host-unreachable", arrived(trio, wire, Protocol.UDP))
        for about_it in (original, unknown):
            for to in addressed:
                crafted = trio.ip(INTERNET, to) / trio.error("net-unreachable") / about_it
                send_packet(trio.netns(INTERNET), crafted)
        send_packet(trio.netns(INTERNET), genuine)
    spoofed = trio.ip(INTERNET) / trio.error("net-unreachable")
    assert len(wire.matching(spoofed, at=trio.at(HOST))) == 2 * len(addressed)
    for name in ("a", "b", "c"):
        wire.expect_none(spoofed, at=trio.at(name))
    wire.expect_one(trio.ip(INTERNET, "a") / trio.error("host-unreachable"), at=trio.at("a"))


def arrived(trio: ThreeContainers, wire: Capture, protocol: Protocol) -> Packet:
    """Return the packet of a container to the echo service, as captured at the internet."""
    request = trio.request(protocol, sport=ANY_PORT, dport=ECHO)
    frame = wire.expect_one(trio.ip(HOST, INTERNET) / request, at=trio.at(INTERNET))
    return frame.packet.payload


def about(trio: ThreeContainers, kind: str, packet: Packet) -> Packet:
    """Craft an ICMP error from the internet that quotes a packet, and is sent to its source."""
    return trio.ip(INTERNET, HOST) / trio.error(kind) / Raw(bytes(packet))


def left(trio: ThreeContainers) -> int:
    """Return the TTL with which a packet from the internet arrives in a container."""
    return START_TTL - trio.scene.world.topology.routers - 1
