"""ARP and neighbour discovery spoofing: containers that announce addresses of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from harness.model.plan import ATTACKER, GATEWAY, HOST, INTERNET, NS1, Protocol
from harness.model.topology import Address, pick
from harness.plugin.marks import requirement
from harness.testbench.client import round_trip
from harness.testbench.packets.craft import ALL_NODES, EVERYBODY_MAC, mac_of, send_frame
from suites.support.three_containers import ThreeContainers

PORT: Final = 31049
WORD: Final = b"for your eyes only"


@pytest.fixture
def spoofing_trio(trio: ThreeContainers) -> Iterator[ThreeContainers]:
    """Yield the three containers, and repair the neighbour caches afterwards.

    The owners of the addresses announce them again.
    """
    yield trio
    for owner in ("b", "c", GATEWAY):
        claim(trio, owner, trio.address(owner))


@requirement("L2-1")
@pytest.mark.parametrize("owner", ["b", GATEWAY])
def test_spoofed_arp_and_nd_redirect_packets_only_as_declared(
    spoofing_trio: ThreeContainers, owner: str
) -> None:
    """A container that announces another's address gets packets for it only where declared."""
    round_trip(
        spoofing_trio.netns("c"), spoofing_trio.netns(owner), spoofing_trio.address(owner), WORD
    )
    claim(spoofing_trio, "a", spoofing_trio.address(owner))
    with (
        spoofing_trio.capture("a", owner) as wire,
        spoofing_trio.client("c", owner, Protocol.UDP, port=PORT) as call,
    ):
        call.send(WORD)
    sent = spoofing_trio.ip("c", owner) / UDP(dport=PORT) / WORD
    gets = {
        name: bool(
            wire.matching(Ether(dst=spoofing_trio.mac(name)) / sent, at=spoofing_trio.at(name))
        )
        for name in ("a", owner)
    }
    contained = spoofing_trio.scene.runtime.dialect.claims(spoofing_trio.family) == "contained"
    assert gets == {"a": not contained, owner: contained}


@requirement("L2-1")
def test_spoofed_arp_and_nd_do_not_affect_other_links_of_the_host(
    spoofing_trio: ThreeContainers,
) -> None:
    """The host still reaches neighbours on other links after a container claims their addresses."""
    host = spoofing_trio.netns(HOST)
    for name in (NS1, ATTACKER):
        round_trip(host, spoofing_trio.netns(name), spoofing_trio.address(name), WORD)
    router = pick(spoofing_trio.scene.world.topology.lan_gateway, spoofing_trio.family).ip
    claimed = [spoofing_trio.address(name) for name in (NS1, ATTACKER, INTERNET, HOST)]
    with spoofing_trio.capture("a", "b") as wire:
        claim(spoofing_trio, "a", *claimed, router)
        for name in (NS1, ATTACKER, INTERNET):
            talk = (spoofing_trio.netns(name), spoofing_trio.address(name), WORD)
            assert round_trip(host, *talk) == (WORD, WORD)
            assert round_trip(spoofing_trio.netns("b"), *talk) == (WORD, WORD)
    assert wire.matching(claims(spoofing_trio.mac("a"), router)[0], at=spoofing_trio.at("b"))
    wire.expect_none(UDP() / WORD, at=spoofing_trio.at("a"))


def claim(trio: ThreeContainers, name: str, *addresses: Address) -> None:
    """Announce addresses on the network as those of the MAC of `name`."""
    frames = [frame for address in addresses for frame in claims(trio.mac(name), address)]
    send_frame(trio.netns(name), *frames, link=trio.link(name))
    trio.settle()


def claims(mac: str, address: Address) -> list[Packet]:
    """Craft announcements (ARP or ND) that make neighbours map an address to a MAC."""
    text = str(address)
    if address.version == 4:
        head = Ether(src=mac, dst=EVERYBODY_MAC)
        return [
            head / ARP(op=operation, hwsrc=mac, psrc=text, hwdst=mac, pdst=text)
            for operation in (1, 2)
        ]
    head = Ether(src=mac, dst=mac_of(ALL_NODES)) / IPv6(src=text, dst=str(ALL_NODES), hlim=255)
    said = ICMPv6ND_NA(tgt=text, R=1, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)
    return [head / said]
