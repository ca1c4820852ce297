"""ARP requests and neighbour solicitations from a container, and the answers to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from harness.model.plan import GATEWAY
from harness.model.topology import Address
from harness.testbench.packets.craft import EVERYBODY_MAC, mac_of, send_frame, solicited_node
from suites.support.three_containers import ThreeContainers

OTHERS: Final = ("b", "c", GATEWAY)
"""Owners of the MACs to which container `a` sends unicast queries."""


def assert_no_proxy_answer(trio: ThreeContainers, address: Address) -> None:
    """Assert that no container and no bridge answers for an address.

    As a control, container `b` answers for its own address.
    """
    with trio.capture("a", *OTHERS) as wire:
        ask(trio, address, besides=OTHERS)
        ask(trio, trio.address("b"), besides=())
    for name in OTHERS:
        assert wire.matching(query(trio, address, to=trio.mac(name)), at=trio.at(name))
    assert wire.matching(answer(trio.address("b")), at=trio.at("a"))
    wire.expect_none(answer(address))


def ask(trio: ThreeContainers, address: Address, besides: Iterable[str]) -> None:
    """Send a query of container `a` to the broadcast or multicast MAC, and to each of `besides`.

    A proxy answers a query to its own MAC at once, and other queries with a delay.
    """
    group = mac_of(solicited_node(address)) if address.version == 6 else EVERYBODY_MAC
    macs = [group, *(trio.mac(name) for name in besides)]
    send_frame(trio.netns("a"), *(query(trio, address, to=mac) for mac in macs))


def query(trio: ThreeContainers, address: Address, *, to: str) -> Packet:
    """Craft an ARP request or neighbour solicitation of container `a` for an address."""
    mac, own = trio.mac("a"), str(trio.address("a"))
    if address.version == 4:
        return Ether(src=mac, dst=to) / ARP(op=1, hwsrc=mac, psrc=own, pdst=str(address))
    head = Ether(src=mac, dst=to) / IPv6(src=own, dst=str(solicited_node(address)), hlim=255)
    return head / ICMPv6ND_NS(tgt=str(address)) / ICMPv6NDOptSrcLLAddr(lladdr=mac)


def answer(address: Address) -> Packet:
    """Return a pattern that matches every ARP or ND answer for an address."""
    return ARP(op=2, psrc=str(address)) if address.version == 4 else ICMPv6ND_NA(tgt=str(address))
