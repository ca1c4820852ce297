"""Who answers when an address is asked for, by ARP and by neighbour discovery."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from harness.attach import last_address
from harness.marks import requirement
from harness.model import ATTACKER, GATEWAY, HOST, INTERNET, LOOPBACK, NS1, Protocol
from harness.multicast import EVERYBODY_MAC, mac_of, solicited_node
from harness.packets.craft import send_frame
from harness.topology import Address
from suites.trio import Trio

OTHERS: Final = ("b", "c", GATEWAY)
PORT: Final = 41051


@requirement("BR-18")
@pytest.mark.parametrize("owner", OTHERS)
def test_the_owner_answers_and_nobody_else(trio: Trio, owner: str) -> None:
    """However it is asked, and whoever else is asked as well: not even a bridge that knows."""
    address, mac = trio.address(owner), trio.mac(owner)
    with trio.call(HOST, owner, Protocol.UDP, port=PORT) as call:
        call.say()
        trio.settle()
    with trio.capture("a", owner) as wire:
        ask(trio, address, besides=(name for name in OTHERS if name != owner))
    heard = wire.matching(answer(address), at=trio.at("a"))
    said = wire.matching(answer(address), at=trio.at(owner))
    assert {claims(frame.packet) for frame in heard} == {(mac, mac)}
    assert len(heard) == len(said)
    assert all(frame.outgoing for frame in said)


@requirement("BR-18")
@pytest.mark.parametrize("whose", ["nobody", LOOPBACK, NS1, ATTACKER, INTERNET])
def test_for_what_is_elsewhere_nobody_answers(trio: Trio, whose: str) -> None:
    """Not the bridge either: what lies beyond it is reached by a route, not by proxy."""
    address = unused(trio) if whose == "nobody" else trio.address(whose)
    with trio.capture("a", *OTHERS) as wire:
        ask(trio, address, besides=OTHERS)
        ask(trio, trio.address("b"), besides=())
    for name in OTHERS:
        assert wire.matching(question(trio, address, to=trio.mac(name)), at=trio.at(name))
    assert wire.matching(answer(trio.address("b")), at=trio.at("a"))
    wire.expect_none(answer(address))


def ask(trio: Trio, address: Address, besides: Iterable[str]) -> None:
    """Have container a ask everybody for an address, and each of `besides` in person.

    Even a proxy answers at once when it is asked in person; otherwise it takes its time.
    """
    group = mac_of(solicited_node(address)) if address.version == 6 else EVERYBODY_MAC
    macs = [group, *(trio.mac(name) for name in besides)]
    send_frame(trio.place("a"), *(question(trio, address, to=mac) for mac in macs))


def question(trio: Trio, address: Address, *, to: str) -> Packet:
    """Container a's question for an address, as ARP or neighbour discovery has it."""
    mac, own = trio.mac("a"), str(trio.address("a"))
    if address.version == 4:
        return Ether(src=mac, dst=to) / ARP(op=1, hwsrc=mac, psrc=own, pdst=str(address))
    head = Ether(src=mac, dst=to) / IPv6(src=own, dst=str(solicited_node(address)), hlim=255)
    return head / ICMPv6ND_NS(tgt=str(address)) / ICMPv6NDOptSrcLLAddr(lladdr=mac)


def answer(address: Address) -> Packet:
    """Anybody's answer that it has an address."""
    return ARP(op=2, psrc=str(address)) if address.version == 4 else ICMPv6ND_NA(tgt=str(address))


def claims(packet: Packet) -> tuple[str, str]:
    """The MAC that an answer comes from, and the one that it names."""
    named = packet[ARP].hwsrc if ARP in packet else packet[ICMPv6NDOptDstLLAddr].lladdr
    return packet[Ether].src, named


def unused(trio: Trio) -> Address:
    """The last address of the network: runtimes count from the first."""
    gateways = trio.scene.runtime.network_facts(trio.network).gateways
    (gateway,) = (item for item in gateways if item.version == trio.family)
    return last_address(gateway).ip
