"""Answers to ARP requests and neighbour solicitations, which only the owner of an address sends."""

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
from suites.support.arp_ndp import OTHERS, answer, ask, assert_no_proxy_answer
from suites.support.three_containers import ThreeContainers

PORT: Final = 31051


@requirement("BR-18")
@pytest.mark.parametrize("owner", OTHERS)
def test_only_the_owner_answers_arp_and_nd(trio: ThreeContainers, owner: str) -> None:
    """Only the owner of an address answers ARP requests and neighbour solicitations for it."""
    address, mac = trio.address(owner), trio.mac(owner)
    with trio.client(HOST, owner, Protocol.UDP, port=PORT) as call:
        call.send()
        trio.settle()
    with trio.capture("a", owner) as wire:
        ask(trio, address, besides=(name for name in OTHERS if name != owner))
    answers = wire.matching(answer(address), at=trio.at("a"))
    answers = wire.matching(answer(address), at=trio.at(owner))
    # A container with its own network stack may probe its gateway meanwhile.
    said = [frame for frame in answers if frame.packet[Ether].dst == trio.mac("a")]
    assert {claims(frame.packet) for frame in answers} == {(mac, mac)}
    assert len(answers) == len(said)
    assert all(frame.outgoing for frame in said)


@requirement("BR-18")
@pytest.mark.parametrize("whose", ["unused", NS1, ATTACKER, INTERNET])
def test_bridge_does_not_proxy_arp_or_nd_for_other_addresses(
    trio: ThreeContainers, whose: str
) -> None:
    """Neither the bridge nor a container answers ARP or ND for an address that no container has.

    The addresses are an unused one of the subnet, and those of outsiders.
    """
    assert_no_proxy_answer(trio, unused(trio) if whose == "unused" else trio.address(whose))


def claims(packet: Packet) -> tuple[str, str]:
    """Return the source MAC of an answer and the MAC in its ARP or ND header."""
    named = packet[ARP].hwsrc if ARP in packet else packet[ICMPv6NDOptDstLLAddr].lladdr
    return packet[Ether].src, named


def unused(trio: ThreeContainers) -> Address:
    """Return the network's last address, unused because runtimes assign the first ones first."""
    gateways = trio.scene.runtime.network_facts(trio.network).gateways
    (gateway,) = (item for item in gateways if item.version == trio.family)
    return last_address(gateway).ip
