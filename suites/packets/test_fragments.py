"""Datagrams larger than the MTU, which are sent in fragments and reassembled."""

from __future__ import annotations

import hashlib
from typing import Final

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet import fragment as cut4
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.layers.inet6 import fragment6 as cut6
from scapy.packet import Packet

from harness.model.plan import GATEWAY, HOST, INTERNET, NS1, Protocol
from harness.plugin.marks import requirement
from harness.testbench.client import round_trip
from harness.testbench.packets.craft import fragment, send_packet
from harness.world.service_protocols import UDP_PORTS
from suites.support.three_containers import ThreeContainers

DATAGRAM: Final = hashlib.shake_128(b"no two pieces are alike").digest(8000)
OWN_PORT: Final = 31044
ECHO: Final = UDP_PORTS["echo"]
PIECE: Final = 1200
"""Bytes of a crafted fragment."""


@requirement("BR-23")
@pytest.mark.parametrize("target", ["b", GATEWAY, HOST, NS1, INTERNET])
def test_datagram_of_8000_bytes_is_echoed_in_fragments(trio: ThreeContainers, target: str) -> None:
    """A datagram of 8000 bytes arrives in fragments, is reassembled, and is echoed the same way."""
    with trio.capture("a") as wire:
        there, back = round_trip(
            trio.netns("a"), trio.netns(target), trio.address(target), DATAGRAM
        )
    assert there == DATAGRAM
    assert back == DATAGRAM
    one, other = trio.address("a"), trio.address(target)
    assert wire.matching(fragment(trio.family, src=one, dst=other))
    assert wire.matching(fragment(trio.family, src=other, dst=one))


@requirement("BR-23")
@pytest.mark.parametrize("target", ["b", GATEWAY, INTERNET])
def test_echo_request_of_8000_bytes_is_answered_in_fragments(
    trio: ThreeContainers, target: str
) -> None:
    """An ICMP echo request of 8000 bytes is sent in fragments and answered in fragments."""
    with (
        trio.capture("a") as wire,
        trio.client("a", target, Protocol.ICMP, own_port=OWN_PORT) as call,
    ):
        call.send(DATAGRAM)
        assert call.receive() == DATAGRAM
    one, other = trio.address("a"), trio.address(target)
    assert wire.matching(fragment(trio.family, src=one, dst=other))
    assert wire.matching(fragment(trio.family, src=other, dst=one))


@requirement("BR-23")
def test_fragments_in_reverse_order_are_reassembled(trio: ThreeContainers) -> None:
    """The internet reassembles a datagram whose fragments are sent in reverse order."""
    with trio.client("a", INTERNET, Protocol.UDP, port=ECHO, own_port=OWN_PORT) as call:
        for piece in reversed(pieces(trio, DATAGRAM)):
            send_packet(trio.netns("a"), piece)
        assert b'"size": 8000' in call.receive()


def pieces(trio: ThreeContainers, data: bytes) -> list[Packet]:
    """Craft the fragments of a datagram from container `a` to the internet's echo service."""
    datagram = UDP(sport=OWN_PORT, dport=ECHO) / data
    if trio.family == 4:
        whole = trio.ip("a", INTERNET) / datagram
        return list(cut4(whole, fragsize=PIECE))  # type: ignore[no-untyped-call] # scapy's
    head = trio.ip("a", INTERNET) / IPv6ExtHdrFragment(id=31044)
    return list(cut6(head / datagram, PIECE))  # type: ignore[no-untyped-call] # scapy's
