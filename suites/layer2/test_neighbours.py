"""Who answers when an address is asked for, by ARP and by neighbour discovery."""

from __future__ import annotations

from typing import Final

import pytest
from scapy.layers.inet6 import ICMPv6NDOptDstLLAddr
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, Protocol
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench.attach import last_address
from suites.support.arp_ndp import OTHERS, answer, ask, assert_nobody_answers
from suites.support.three_containers import ThreeContainers

PORT: Final = 31051


@requirement("BR-18")
@pytest.mark.parametrize("owner", OTHERS)
def test_the_owner_answers_and_nobody_else(trio: ThreeContainers, owner: str) -> None:
    """However it is asked, and whoever else is asked as well: not even a bridge that knows."""
    address, mac = trio.address(owner), trio.mac(owner)
    with trio.call(HOST, owner, Protocol.UDP, port=PORT) as call:
        call.say()
        trio.settle()
    with trio.capture("a", owner) as wire:
        ask(trio, address, besides=(name for name in OTHERS if name != owner))
    heard = wire.matching(answer(address), at=trio.at("a"))
    answers = wire.matching(answer(address), at=trio.at(owner))
    # Somebody else may be asking as well: who has a stack of its own looks again at its gateway.
    said = [frame for frame in answers if frame.packet[Ether].dst == trio.mac("a")]
    assert {claims(frame.packet) for frame in heard} == {(mac, mac)}
    assert len(heard) == len(said)
    assert all(frame.outgoing for frame in said)


@requirement("BR-18")
@pytest.mark.parametrize("whose", ["nobody", NS1, ATTACKER, INTERNET])
def test_for_what_is_elsewhere_nobody_answers(trio: ThreeContainers, whose: str) -> None:
    """Not the bridge either: what lies beyond it is reached by a route, not by proxy."""
    assert_nobody_answers(trio, unused(trio) if whose == "nobody" else trio.address(whose))


def claims(packet: Packet) -> tuple[str, str]:
    """The MAC that an answer comes from, and the one that it names."""
    named = packet[ARP].hwsrc if ARP in packet else packet[ICMPv6NDOptDstLLAddr].lladdr
    return packet[Ether].src, named


def unused(trio: ThreeContainers) -> Address:
    """The last address of the network: runtimes count from the first."""
    gateways = trio.scene.runtime.network_facts(trio.network).gateways
    (gateway,) = (item for item in gateways if item.version == trio.family)
    return last_address(gateway).ip
