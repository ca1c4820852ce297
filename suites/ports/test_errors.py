"""TCP resets and ICMP errors of flows through a published port."""

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
from harness.testbench.packets.capture import Capture, TapPool
from harness.testbench.scene import Scene
from suites.ports.published import INSIDE, PORTS, PublishedContainer, PublishNetwork

REFUSALS: Final = {"tcp": "reset", "udp": "port-unreachable"}
MTUS: Final = {"packet-too-big": 1300, "host-unreachable": None}
"""ICMP errors of a router, and the MTU in bytes that they report."""


@requirement("BR-20", "PUB-1")
@pytest.mark.parametrize("caller", [ATTACKER, INTERNET])
def test_packet_to_published_port_without_listener_is_rejected(
    ports_scene: Scene, transport: Transport, family: Family, caller: str
) -> None:
    """A client of a published port gets a reset or port-unreachable if no process listens on it."""
    address, port = ports_scene.world.address(HOST, family), PORTS[transport]
    with Client(ports_scene.netns(caller), Protocol(transport), address, port=port) as call:
        call.send()
        ports_scene.settle()
        assert call.error() == REFUSALS[transport]


@pytest.fixture
def web(publish_network: PublishNetwork) -> Iterator[tuple[list[PublishedContainer], TapPool]]:
    """Publish a port over UDP, and open packet taps while the container exists."""
    found = publish_network.publish("web")
    with TapPool() as own:
        yield [published for published in found if published.transport == "udp"], own


@requirement("BR-21", "BR-22", "PUB-1")
@pytest.mark.parametrize("kind", MTUS)
def test_icmp_error_about_reply_reaches_published_server(
    publish_network: PublishNetwork,
    web: tuple[list[PublishedContainer], TapPool],
    wires: TapPool,
    kind: str,
) -> None:
    """An ICMP error about a published container's reply reaches it with translated headers."""
    published_on, own = web
    caller = publish_network.scene.netns(ATTACKER)
    inside, outside = own.tap(published_on[0].container.net), wires.tap(caller)
    for published in published_on:
        host, its = (
            publish_network.own(published.family),
            publish_network.scene.world.address(ATTACKER, published.family),
        )
        error = craft.error(published.family, kind, mtu=MTUS[kind])
        with Capture([inside, outside]) as wire:
            answer(published, caller, host)
            answered = craft.ip(published.family, src=host, dst=its) / UDP(
                sport=publish_network.port
            )
            quoted = Raw(bytes(wire.expect_one(answered, at=outside.where).packet.payload))
            craft.send_packet(
                caller, craft.ip(published.family, src=its, dst=host) / error / quoted
            )
            publish_network.scene.settle()
        given = craft.ip(published.family, src=published.own(), dst=its) / UDP(sport=INSIDE)
        expected = craft.ip(published.family, src=its, dst=published.own()) / error / given
        wire.expect_one(expected, at=inside.where)


def answer(published: PublishedContainer, caller: NetnsView, at: Address) -> None:
    """Send a datagram to the published port, reply to its source, and await the reply."""
    with (
        published.listener() as listener,
        Client(caller, Protocol.UDP, at, port=published.port) as call,
    ):
        call.send(b"is anybody in?")
        _, sender = listener.receive()
        listener.send(sender, b"who asks?")
        assert call.receive() == b"who asks?"
