"""A container that claims what is not its own: by ARP, and by neighbour discovery."""

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
from harness.testbench.client import there_and_back
from harness.testbench.packets.craft import ALL_NODES, EVERYBODY_MAC, mac_of, send_frame
from suites.support.three_containers import ThreeContainers

PORT: Final = 31049
WORD: Final = b"for your eyes only"


@pytest.fixture
def fooled(trio: ThreeContainers) -> Iterator[ThreeContainers]:
    """The trio; the true owners' own claims put right what was made of it."""
    yield trio
    for owner in ("b", "c", GATEWAY):
        claim(trio, owner, trio.address(owner))


@requirement("L2-1")
@pytest.mark.parametrize("owner", ["b", GATEWAY])
def test_a_claim_is_contained_as_declared(fooled: ThreeContainers, owner: str) -> None:
    """What c sends to the address goes to its owner, or where openness is declared, to a."""
    there_and_back(fooled.place("c"), fooled.place(owner), fooled.address(owner), WORD)
    claim(fooled, "a", fooled.address(owner))
    with (
        fooled.capture("a", owner) as wire,
        fooled.call("c", owner, Protocol.UDP, port=PORT) as call,
    ):
        call.say(WORD)
    sent = fooled.ip("c", owner) / UDP(dport=PORT) / WORD
    gets = {
        name: bool(wire.matching(Ether(dst=fooled.mac(name)) / sent, at=fooled.at(name)))
        for name in ("a", owner)
    }
    contained = fooled.scene.runtime.dialect.claims(fooled.family) == "contained"
    assert gets == {"a": not contained, owner: contained}


@requirement("L2-1")
def test_a_claim_changes_nothing_on_other_links(fooled: ThreeContainers) -> None:
    """The host still finds its own neighbours, whose addresses were claimed on the bridge."""
    host = fooled.place(HOST)
    for name in (NS1, ATTACKER):
        there_and_back(host, fooled.place(name), fooled.address(name), WORD)
    router = pick(fooled.scene.world.topology.lan_gateway, fooled.family).ip
    claimed = [fooled.address(name) for name in (NS1, ATTACKER, INTERNET, HOST)]
    with fooled.capture("a", "b") as wire:
        claim(fooled, "a", *claimed, router)
        for name in (NS1, ATTACKER, INTERNET):
            talk = (fooled.place(name), fooled.address(name), WORD)
            assert there_and_back(host, *talk) == (WORD, WORD)
            assert there_and_back(fooled.place("b"), *talk) == (WORD, WORD)
    assert wire.matching(claims(fooled.mac("a"), router)[0], at=fooled.at("b"))
    wire.expect_none(UDP() / WORD, at=fooled.at("a"))


def claim(trio: ThreeContainers, who: str, *addresses: Address) -> None:
    """Have somebody tell everybody on the network that these are its addresses."""
    frames = [frame for address in addresses for frame in claims(trio.mac(who), address)]
    send_frame(trio.place(who), *frames, link=trio.link(who))
    trio.settle()


def claims(mac: str, address: Address) -> list[Packet]:
    """What makes a neighbour that knows an address take note of another MAC for it."""
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
