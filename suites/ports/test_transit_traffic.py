"""Traffic to addresses that are not the host's, which published ports must not redirect."""

from __future__ import annotations

from typing import Final

from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, Family, Protocol
from harness.plugin.marks import requirement
from harness.testbench.listener import broadcast
from harness.testbench.packets import craft
from harness.testbench.packets.capture import TapPool
from harness.testbench.packets.craft import send_frame
from harness.testbench.scene import Scene
from suites.ports.published import (
    INSIDE,
    PORTS,
    PortCall,
    PublishedContainer,
    assert_not_redirected,
    has_taps,
    link_of,
)

WORD: Final = b"not for the host"


@requirement("PUB-9")
def test_published_port_number_on_other_machines_is_not_redirected(
    ports_scene: Scene, published: PublishedContainer, family: Family
) -> None:
    """Traffic to other machines is not redirected, even if it is to a published port's number."""
    assert published.serves(NS1, ports_scene.world.address(HOST, family))
    assert_not_redirected(ports_scene, published.transport, family, published.port)


@requirement("PUB-9", "BR-4", "BR-27")
def test_host_port_number_is_closed_at_container_address(
    ports_scene: Scene, published: PublishedContainer
) -> None:
    """At a container's own address, a peer and the host reach the container port only.

    The number of the host port is closed there.
    """
    for caller in ("peer", HOST):
        assert published.serves(caller, published.own(), port=INSIDE)
        assert published.delivered([PortCall(caller, published.own())]) == []


@requirement("PUB-9")
def test_routed_traffic_of_the_lan_is_not_redirected(
    ports_scene: Scene, published: PublishedContainer, family: Family, wires: TapPool
) -> None:
    """A packet that a LAN neighbour routes through the host to the internet is not redirected.

    Its destination port has the number of a published port.
    """
    host, attacker, internet = (ports_scene.netns(name) for name in (HOST, ATTACKER, INTERNET))
    source, target = (ports_scene.world.address(name, family) for name in (ATTACKER, INTERNET))
    head = Ether(src=attacker.links()["eth0"].mac, dst=host.links()["eth0"].mac)
    request = craft.request(family, Protocol(published.transport), sport=9, dport=published.port)
    sent = craft.ip(family, src=source, dst=target) / request
    with wires.capture(host, internet) as wire:
        send_frame(attacker, head / sent)
        ports_scene.settle()
    wire.expect_one(head / sent, at=f"{HOST}/eth0")
    wire.expect_one(sent, at=f"{INTERNET}/eth0")


@requirement("PUB-9")
def test_broadcasts_to_published_port_are_not_redirected(
    ports_scene: Scene, family: Family
) -> None:
    """Broadcasts to the number of a published port are not redirected to the container.

    They are sent on the LAN and on the container's network. If that network has no peers, they are
    sent on br0 instead.
    """
    port = PORTS["udp"]
    attacker = ports_scene.netns(ATTACKER)
    beside = ports_scene.netns(NS1 if has_taps(ports_scene.runtime) else "peer")
    everybody = [
        item.network.broadcast_address for item in attacker.interfaces() if item.version == 4
    ]
    with ports_scene.netns("published").capture(link_of(ports_scene, "published")) as wire:
        assert broadcast(attacker, everybody, port=port, payload=WORD)
        assert broadcast(beside, [ports_scene.world.address(HOST, family)], port=port, payload=WORD)
        ports_scene.settle()
    came = [frame for frame in wire.matching(UDP(dport=INSIDE) / WORD) if not frame.outgoing]
    assert len(came) == 1, came  # only the packet to the host's address
