"""Networks with inter-container communication (ICC) off, on which only peers are unreachable."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import pytest
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import (
    ATTACKER,
    GATEWAY,
    HOST,
    INTERNET,
    NS1,
    Bridge,
    ContainerSpec,
    NetworkSpec,
    Plan,
    Protocol,
    Publish,
)
from harness.model.topology import START_TTL, Address
from harness.plugin.marks import requirement
from harness.testbench.listener import EVERYBODY
from harness.testbench.packets.capture import TapPool
from harness.testbench.packets.craft import EVERYBODY_MAC, mac_of, send_frame
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.features import has_ipv6
from suites.support.three_containers import EACH_FAMILY, ThreeContainers

NETWORK = "apart"
PORT: Final = 31080
PUBLISHED: Final = 8290
WORD: Final = b"can you hear me, neighbour?"
CONTROL: Final = b"properly said"
UNASSIGNED: Final[dict[int, Address]] = {
    4: IPv4Address("192.0.2.250"),
    6: IPv6Address("2001:db8:99::1"),
}
"""Source addresses that are not assigned."""
EXPERIMENTAL: Final = 0x88B5
ETHERTYPES: Final = (0x0000, 0x0801, 0x8035, 0x8847, EXPERIMENTAL, 0x88CC, 0x9000)
"""EtherTypes: a length, X.75, RARP, MPLS, an experimental one, LLDP, loopback."""


@pytest.fixture(scope="module")
def icc_scene(world: World, runtime: Adapter) -> Iterator[tuple[Scene, TapPool]]:
    """Share three containers on a network with inter-container communication (ICC) off.

    `b` and `c` have published ports, which must not let in frames of peers.
    """
    published = {"b": PUBLISHED, "c": PUBLISHED + 1} if Feature.PUBLISH in runtime.features else {}
    ports = {name: (Publish(port, PORT, "udp"),) for name, port in published.items()}
    plan = Plan(
        networks=(NetworkSpec(NETWORK, icc=False, ipv6=has_ipv6(runtime)),),
        containers=tuple(
            ContainerSpec(name, Bridge(NETWORK), ports=ports.get(name, ())) for name in "abc"
        ),
    )
    with Scene(world, runtime, plan) as scene, TapPool() as own:
        yield scene, own


@pytest.fixture(params=EACH_FAMILY)
def icc_trio(
    icc_scene: tuple[Scene, TapPool], wires: TapPool, request: pytest.FixtureRequest
) -> ThreeContainers:
    """Return the three containers, tested in one address family."""
    scene, own = icc_scene
    return ThreeContainers(scene, request.param, NETWORK, wires, own)


@requirement("ICC-1")
def test_container_without_icc_reaches_everything_but_peers(
    icc_scene: tuple[Scene, TapPool],
) -> None:
    """Without ICC, a container reaches gateway, host, bystanders and internet, but no peer."""
    scene, _ = icc_scene
    assert scene.observed() == scene.promised()


@requirement("ICC-1")
def test_frames_do_not_reach_peers_without_icc(icc_trio: ThreeContainers) -> None:
    """Without ICC, no unicast, broadcast or multicast frame of a container reaches a peer.

    The frames carry IP, ARP, neighbour discovery and other EtherTypes, with and without a VLAN tag.
    """
    frames = list(addressed(icc_trio, "b"))
    with icc_trio.capture("a", "b", "c", GATEWAY) as wire:
        send_frame(icc_trio.netns("a"), *frames)
        for name in ("b", "c"):
            with icc_trio.client(GATEWAY, name, Protocol.UDP, port=PORT) as call:
                call.send(CONTROL)
    assert len([item for item in wire.frames(at=icc_trio.at("a")) if WORD in item.data]) == len(
        frames
    )
    assert [item for item in wire.frames(at=icc_trio.at(GATEWAY)) if WORD in item.data]
    for name in ("b", "c"):
        seen = wire.frames(at=icc_trio.at(name))
        assert [item for item in seen if CONTROL in item.data]
        assert [str(item) for item in seen if WORD in item.data] == []
        wire.expect_none(Ether(src=icc_trio.mac("a")), at=icc_trio.at(name))


@requirement("ICC-1")
def test_gateway_does_not_forward_to_peers_without_icc(icc_trio: ThreeContainers) -> None:
    """Without ICC, the gateway does not forward a container's packets to a peer."""
    with icc_trio.capture("b") as wire:
        for target in ("b", HOST):
            packet = icc_trio.ip("a", target, ttl=START_TTL) / UDP(dport=PORT) / WORD
            send_frame(
                icc_trio.netns("a"),
                Ether(src=icc_trio.mac("a"), dst=icc_trio.mac(GATEWAY)) / packet,
            )
        with icc_trio.client(GATEWAY, "b", Protocol.UDP, port=PORT) as call:
            call.send(CONTROL)
    assert [item for item in wire.frames() if CONTROL in item.data]
    assert [str(item) for item in wire.frames() if WORD in item.data] == []


@requirement("BR-26", "ICC-1")
def test_spoofed_source_does_not_leave_the_host_without_icc(icc_trio: ThreeContainers) -> None:
    """Without ICC, a packet with a spoofed source does not leave the host.

    Packets with the container's own address leave.
    """
    spoofed = [icc_trio.address(NS1), icc_trio.address(INTERNET), UNASSIGNED[icc_trio.family]]
    head = Ether(src=icc_trio.mac("a"), dst=icc_trio.mac(GATEWAY))
    posing = [icc_trio.ip(source, ATTACKER) / UDP(dport=PORT) / WORD for source in spoofed]
    with icc_trio.capture(GATEWAY, HOST) as wire:
        send_frame(icc_trio.netns("a"), *(head / packet for packet in posing))
        with icc_trio.client("a", ATTACKER, Protocol.UDP, port=PORT) as call:
            call.send(CONTROL)
    for packet in posing:
        wire.expect_one(packet, at=icc_trio.at(GATEWAY))
    seen = wire.frames(at=icc_trio.at(HOST))
    assert [item for item in seen if CONTROL in item.data]
    assert [str(item) for item in seen if WORD in item.data] == []


@requirement("ICC-1", "NET-3")
def test_connected_container_is_isolated_from_peers_without_icc(scene: Scene) -> None:
    """A container that is connected to a network without ICC does not reach its peers there.

    The peers do not reach the container either.
    """
    scene.network("later", icc=False)
    scene.containers(x=Bridge("later"), y=Bridge())
    scene.connect("y", "later")
    assert scene.observed() == scene.promised()


@requirement("ICC-1", "LIFE-7")
def test_restarted_container_is_isolated_from_peers_without_icc(scene: Scene) -> None:
    """Without ICC, a restarted container and its peers still do not reach each other."""
    scene.network("again", icc=False)
    scene.containers(x=Bridge("again"), y=Bridge("again"))
    scene["y"].stop()
    scene.start("y")
    assert scene.observed() == scene.promised()


@requirement("ICC-1", "NET-3")
def test_frames_of_connected_container_do_not_reach_peers_without_icc(scene: Scene) -> None:
    """After connect to a network without ICC, a container's frames reach no peer there.

    The frames have an unknown EtherType.
    """
    scene.network("later", icc=False)
    scene.containers(x=Bridge("later"), y=Bridge())
    before = scene["y"].net.links().keys()
    scene.connect("y", "later")
    (link,) = scene["y"].net.links().keys() - before
    assert receivers(scene, "x", "later", link=link) == [CONTROL]


def receivers(scene: Scene, name: str, network: str, *, link: str) -> list[bytes]:
    """Return the payloads that a container receives from two frames with an unknown EtherType.

    `y` sends one of the frames by its interface `link`. The gateway sends the other as a control.
    """
    bridge = scene.runtime.network_facts(network).interface
    assert bridge is not None
    with TapPool() as own, own.capture(scene[name].net) as wire:
        for view, by, word in (
            (scene["y"].net, link, WORD),
            (scene.netns(GATEWAY), bridge, CONTROL),
        ):
            head = Ether(src=view.links()[by].mac, dst=EVERYBODY_MAC, type=EXPERIMENTAL)
            send_frame(view, head / word, link=by)
        scene.settle()
    return [word for word in (WORD, CONTROL) if any(word in item.data for item in wire.frames())]


def addressed(trio: ThreeContainers, target: str) -> Iterator[Packet]:
    """Craft frames from `a` that a peer would accept, each with `WORD` as payload."""
    own, mac = trio.mac("a"), trio.mac(target)
    datagram = trio.ip("a", target) / UDP(dport=PORT) / WORD
    groups = [item for item in EVERYBODY if item.version == trio.family]
    for to in (mac, EVERYBODY_MAC, *(mac_of(group) for group in groups)):
        yield Ether(src=own, dst=to) / datagram
        yield Ether(src=own, dst=to) / Dot1Q(vlan=1) / datagram
        for kind in ETHERTYPES:
            yield Ether(src=own, dst=to, type=kind) / WORD
    for group in groups:
        yield Ether(src=own, dst=mac_of(group)) / trio.ip("a", group) / UDP(dport=PORT) / WORD
    if trio.family == 4:
        asked = ARP(op=1, hwsrc=own, psrc=str(trio.address("a")), pdst=str(trio.address(target)))
        yield Ether(src=own, dst=EVERYBODY_MAC) / asked / WORD
        yield Ether(src=own, dst=mac) / trio.ip("a", target) / ICMP() / WORD
    else:
        sought = ICMPv6ND_NS(tgt=str(trio.address(target))) / ICMPv6NDOptSrcLLAddr(lladdr=own)
        yield Ether(src=own, dst=mac) / trio.ip("a", target, ttl=255) / sought / WORD
