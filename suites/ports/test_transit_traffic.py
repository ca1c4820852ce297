"""Only what goes to the host's own addresses is redirected: the rest passes as it came."""

from __future__ import annotations

from typing import Final

from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, Family, Protocol
from harness.plugin.marks import requirement
from harness.testbench.listener import shout
from harness.testbench.packets import craft
from harness.testbench.packets.craft import send_frame
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from suites.ports.published import (
    INSIDE,
    PORTS,
    PortCall,
    PublishedContainer,
    assert_theirs,
    has_taps,
    link_of,
)

WORD: Final = b"not for the host"


@requirement("PUB-9")
def test_on_other_machines_the_port_is_theirs(
    market: Scene, shop: PublishedContainer, family: Family
) -> None:
    """Containers, bystanders and the host itself reach whom they call, and hear the answer."""
    assert shop.serves(NS1, market.world.address(HOST, family))
    assert_theirs(market, shop.transport, family, shop.port)


@requirement("PUB-9", "BR-4", "BR-27")
def test_a_peer_that_is_called_directly_is_not_redirected(
    market: Scene, shop: PublishedContainer
) -> None:
    """Neither who publishes: on its own address only the port answers that it listens on."""
    for caller in ("peer", HOST):
        assert shop.serves(caller, shop.own(), port=INSIDE)
        assert shop.overhears([PortCall(caller, shop.own())]) == []


@requirement("PUB-9")
def test_what_the_lan_sends_through_the_host_is_not_redirected(
    market: Scene, shop: PublishedContainer, family: Family, wires: TapPool
) -> None:
    """A neighbour that takes the host for its router reaches whom it means."""
    host, attacker, internet = (market.place(name) for name in (HOST, ATTACKER, INTERNET))
    source, target = (market.world.address(name, family) for name in (ATTACKER, INTERNET))
    head = Ether(src=attacker.links()["eth0"].mac, dst=host.links()["eth0"].mac)
    request = craft.request(family, Protocol(shop.transport), sport=9, dport=shop.port)
    sent = craft.ip(family, src=source, dst=target) / request
    with wires.capture(host, internet) as wire:
        send_frame(attacker, head / sent)
        market.settle()
    wire.expect_one(head / sent, at=f"{HOST}/eth0")
    wire.expect_one(sent, at=f"{INTERNET}/eth0")


@requirement("PUB-9")
def test_what_goes_to_everybody_is_no_call_of_the_hosts(market: Scene, family: Family) -> None:
    """Broadcasts and multicasts to a published port, on the LAN and on its own network.

    Or on br0, where the container has no network that anybody else is on.
    """
    port = PORTS["udp"]
    attacker = market.place(ATTACKER)
    beside = market.place(NS1 if has_taps(market.runtime) else "peer")
    everybody = [
        item.network.broadcast_address for item in attacker.interfaces() if item.version == 4
    ]
    with market.place("shop").capture(link_of(market, "shop")) as wire:
        assert shout(attacker, everybody, port=port, word=WORD)
        assert shout(beside, [market.world.address(HOST, family)], port=port, word=WORD)
        market.settle()
    came = [frame for frame in wire.matching(UDP(dport=INSIDE) / WORD) if not frame.outgoing]
    assert len(came) == 1, came  # the call of the host's address, nothing else
