"""Resets and ICMP errors about flows that came by a published port: each to whom it concerns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from scapy.layers.inet import UDP
from scapy.packet import Raw

from harness.model.plan import ATTACKER, HOST, INTERNET, Family, Protocol
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench.client import Client
from harness.testbench.listener import Transport
from harness.testbench.netns_view import NetnsView
from harness.testbench.packets import craft
from harness.testbench.packets.capture import Capture
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from suites.ports.published import INSIDE, PORTS, PublishedContainer, PublishNetwork

REFUSALS: Final = {"tcp": "reset", "udp": "port-unreachable"}
MTUS: Final = {"packet-too-big": 1300, "host-unreachable": None}
"""Errors of somebody further on, and the MTU in bytes that they tell."""


@requirement("BR-20", "PUB-1")
@pytest.mark.parametrize("caller", [ATTACKER, INTERNET])
def test_a_port_that_is_closed_inside_refuses(
    market: Scene, transport: Transport, family: Family, caller: str
) -> None:
    """Who calls the published port while nobody listens there is told so at once."""
    address, port = market.world.address(HOST, family), PORTS[transport]
    with Client(market.place(caller), Protocol(transport), address, port=port) as call:
        call.say()
        market.settle()
        assert call.told() == REFUSALS[transport]


@pytest.fixture
def web(fair: PublishNetwork) -> Iterator[tuple[list[PublishedContainer], TapPool]]:
    """A container that publishes a port, over UDP, and taps on it for as long as it is there."""
    found = fair.opened("web")
    with TapPool() as own:
        yield [shop for shop in found if shop.transport == "udp"], own


@requirement("BR-21", "BR-22", "PUB-1")
@pytest.mark.parametrize("kind", MTUS)
def test_an_error_about_an_answer_comes_to_who_gave_it(
    fair: PublishNetwork, web: tuple[list[PublishedContainer], TapPool], wires: TapPool, kind: str
) -> None:
    """Inside and outside of what it quotes are the container's own address and port."""
    shops, own = web
    caller = fair.scene.place(ATTACKER)
    inside, outside = own.tap(shops[0].container.net), wires.tap(caller)
    for shop in shops:
        host, its = fair.own(shop.family), fair.scene.world.address(ATTACKER, shop.family)
        error = craft.error(shop.family, kind, mtu=MTUS[kind])
        with Capture([inside, outside]) as wire:
            answer(shop, caller, host)
            answered = craft.ip(shop.family, src=host, dst=its) / UDP(sport=fair.port)
            quoted = Raw(bytes(wire.expect_one(answered, at=outside.where).packet.payload))
            craft.send_packet(caller, craft.ip(shop.family, src=its, dst=host) / error / quoted)
            fair.scene.settle()
        given = craft.ip(shop.family, src=shop.own(), dst=its) / UDP(sport=INSIDE)
        told = craft.ip(shop.family, src=its, dst=shop.own()) / error / given
        wire.expect_one(told, at=inside.where)


def answer(shop: PublishedContainer, caller: NetnsView, at: Address) -> None:
    """Have somebody call the published port, and be answered."""
    with shop.ear() as ear, Client(caller, Protocol.UDP, at, port=shop.port) as call:
        call.say(b"is anybody in?")
        _, sender = ear.heard()
        ear.tell(sender, b"who asks?")
        assert call.hear() == b"who asks?"
