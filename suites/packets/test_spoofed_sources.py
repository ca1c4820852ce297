"""Packets with spoofed sources or of no known flow, which must not leave the host untranslated."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Final

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from harness.model.plan import ATTACKER, GATEWAY, HOST, INTERNET, NS1
from harness.plugin.marks import requirement
from harness.testbench.packets.craft import send_frame
from harness.world.service_protocols import UDP_PORTS
from linux.conntrack import Conntrack
from suites.support.three_containers import ThreeContainers

ECHO: Final = UDP_PORTS["echo"]
OWN_PORT: Final = 31046
WORD: Final = b"who am I?"

UNASSIGNED: Final = {
    4: ("192.0.2.250", "10.99.0.9", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1"),  # noqa: S104
    6: ("2001:db8:99::1", "fd99::9", "::1", "::", "ff02::1", "fe80::99"),
}
"""Unassigned and invalid source addresses."""

PORTLESS: Final = (47, 50, 51, 132, 136, 253)
"""Other protocols: GRE, ESP, AH, SCTP, UDP-Lite, an experimental one."""


@requirement("BR-26")
@pytest.mark.parametrize("target", [NS1, ATTACKER, INTERNET])
def test_packet_with_spoofed_source_does_not_leave_the_host(
    trio: ThreeContainers, target: str
) -> None:
    """A packet with a spoofed source does not leave the host, whatever its target.

    The source is the address of a bystander or neighbour, an unassigned or an invalid address.
    """
    others = (trio.address(name) for name in (HOST, NS1, ATTACKER, INTERNET, GATEWAY))
    spoofed = [*others, *(ip_address(text) for text in UNASSIGNED[trio.family])]
    with trio.capture(GATEWAY, HOST, NS1) as wire:
        posing = (trio.ip(source, target) / datagram(f"as {source}") for source in spoofed)
        emit(trio, *posing, trio.ip("a", target) / datagram("as myself"))
    for source in spoofed:
        sent = trio.ip(source) / datagram(f"as {source}")
        wire.expect_one(sent, at=trio.at(GATEWAY))
        for outside in (HOST, NS1):
            wire.expect_none(sent, at=trio.at(outside))
    way_out = trio.at(NS1 if target == NS1 else HOST)
    wire.expect_one(trio.ip(dst=target) / datagram("as myself"), at=way_out)


@requirement("BR-7")
def test_invalid_packets_do_not_leave_with_container_address(
    trio: ThreeContainers,
) -> None:
    """Packets that conntrack treats as invalid do not leave the host with a container's address.

    The packets are stray resets and replies, have wrong checksums, or are of protocols without
    ports.
    """
    forget_flows(trio)
    odd = invalid_packets(trio)
    with trio.capture(GATEWAY, HOST, INTERNET) as wire:
        emit(trio, *odd, trio.ip("a", INTERNET) / datagram("as myself"))
    assert len(wire.matching(trio.ip("a", INTERNET), at=trio.at(GATEWAY))) > len(odd)
    for outside in (HOST, INTERNET):
        wire.expect_none(trio.ip("a"), at=trio.at(outside))
        wire.expect_one(trio.ip(HOST, INTERNET) / datagram("as myself"), at=trio.at(outside))


def forget_flows(trio: ThreeContainers) -> None:
    """Delete the conntrack entries of container `a`.

    A packet that a bystander routed to the container in an earlier test may have left a flow
    without translation. A protocol without ports has only one flow per pair of addresses. The
    container's packets would then count as replies in that flow.
    """
    with trio.netns(GATEWAY).open() as space, Conntrack(space) as conntrack:
        conntrack.forget(conntrack.of({trio.address("a")}))


def invalid_packets(trio: ThreeContainers) -> list[Packet]:
    """Craft packets of container `a` that belong to no flow, or that conntrack cannot parse."""
    head = trio.ip("a", INTERNET)
    ports: dict[str, Any] = {"sport": OWN_PORT, "dport": ECHO}
    quoted = trio.ip(INTERNET, "a") / UDP(sport=ECHO, dport=9) / b"never said"
    reply = ICMP(type=0, id=77) if trio.family == 4 else ICMPv6EchoReply(id=77)
    found = [
        *(head / TCP(**ports, flags=flags) for flags in ("R", "RA", "FA", "A", "SF", "", "FPU")),
        head / TCP(**ports, flags="S", chksum=1),
        head / UDP(**ports, chksum=1) / b"the sum is wrong",
        head / UDP(**ports, len=4000) / b"the length is wrong",
        head / reply / b"nobody asked",
        head / trio.error("port-unreachable") / quoted,
    ]
    for number in PORTLESS:
        packet = head / Raw(bytes(40))
        packet.setfieldval("proto" if trio.family == 4 else "nh", number)
        found.append(packet)
    return found


def datagram(word: str) -> Packet:
    """Return a UDP datagram to the echo service."""
    return UDP(dport=ECHO) / word.encode()


def emit(trio: ThreeContainers, *packets: Packet) -> None:
    """Send packets unchanged from container `a`, to the MAC of the bridge."""
    head = Ether(src=trio.mac("a"), dst=trio.mac(GATEWAY))
    send_frame(trio.netns("a"), *(head / packet for packet in packets))
