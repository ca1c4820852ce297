"""Packets with unusual IP and transport headers, which must arrive unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet

from harness.model.plan import GATEWAY, INTERNET
from harness.model.topology import START_TTL
from harness.plugin.marks import requirement
from harness.testbench.packets.craft import send_packet
from suites.support.three_containers import ThreeContainers

OWN_PORT: Final = 31046
EXPEDITED, CAPABLE = 46 << 2, 0b10
"""Traffic classes: telephony (RFC 3246), and explicit congestion notification (RFC 3168)."""
OPTIONS: Final = [
    ("MSS", 1400),
    ("SAckOK", b""),
    ("Timestamp", (7, 0)),
    ("WScale", 14),
    (254, b"x"),
]
"""TCP options that every system sends, and an experimental one (RFC 4727)."""


CLASS: Final = {4: "tos", 6: "tc"}
"""Name of the traffic class in an IP header."""


@requirement("BR-4", "BR-5", "BR-7", "BR-28")
@pytest.mark.parametrize("target", ["b", GATEWAY, INTERNET])
def test_packet_with_unusual_header_arrives_unchanged(trio: ThreeContainers, target: str) -> None:
    """A packet with an unusual header arrives with its traffic class and ECN unchanged.

    Packets have a traffic class, ECN, TCP options, no UDP checksum or no payload.
    """
    with trio.capture(target) as wire:
        for marked, said in unusual(trio):
            head = trio.ip("a", target, ttl=START_TTL)
            head.setfieldval(CLASS[trio.family], marked)
            send_packet(trio.netns("a"), head / said)
    for marked, said in unusual(trio):
        wanted = trio.ip(dst=target) / type(said)(dport=said.dport)
        came = wire.expect_one(wanted, at=trio.at(target)).packet
        assert came[type(wanted)].getfieldval(CLASS[trio.family]) == marked


def unusual(trio: ThreeContainers) -> Iterator[tuple[int, Packet]]:
    """Craft packets with traffic classes and transport headers, each to a different port."""
    yield EXPEDITED, UDP(sport=OWN_PORT, dport=OWN_PORT) / b"in a hurry"
    yield CAPABLE, UDP(sport=OWN_PORT, dport=OWN_PORT + 1) / b"with patience"
    yield 0, UDP(sport=OWN_PORT, dport=OWN_PORT + 2)
    yield 0, TCP(sport=OWN_PORT, dport=OWN_PORT, flags="SEC")
    yield 0, TCP(sport=OWN_PORT, dport=OWN_PORT + 1, flags="S", options=OPTIONS)
    if trio.family == 4:  # IPv6 has no UDP without a checksum (RFC 8200, 8.1)
        yield 0, UDP(sport=OWN_PORT, dport=OWN_PORT + 3, chksum=0) / b"on trust"
