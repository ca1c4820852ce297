"""Without inter-container communication: peers are not there for each other, the rest is."""

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
from harness.testbench.packets.craft import EVERYBODY_MAC, mac_of, send_frame
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.features import has_ipv6
from suites.support.three_containers import EACH_FAMILY, ThreeContainers

NETWORK = "apart"
PORT: Final = 31080
PUBLISHED: Final = 8290
WORD: Final = b"can you hear me, neighbour?"
CONTROL: Final = b"properly said"
NOBODY: Final[dict[int, Address]] = {
    4: IPv4Address("192.0.2.250"),
    6: IPv6Address("2001:db8:99::1"),
}
"""Addresses of nobody's."""
EXPERIMENTAL: Final = 0x88B5
ETHERTYPES: Final = (0x0000, 0x0801, 0x8035, 0x8847, EXPERIMENTAL, 0x88CC, 0x9000)
"""A length, X.75, RARP, MPLS, one for experiments, LLDP, loopback."""


@pytest.fixture(scope="module")
def hermits(world: World, runtime: Adapter) -> Iterator[tuple[Scene, TapPool]]:
    """Three containers on a network without inter-container communication.

    `b` and `c` publish a port each, which makes no difference to their peers.
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
def apart(
    hermits: tuple[Scene, TapPool], wires: TapPool, request: pytest.FixtureRequest
) -> ThreeContainers:
    """The same, as one address family has it."""
    scene, own = hermits
    return ThreeContainers(scene, request.param, NETWORK, wires, own)


@requirement("ICC-1")
def test_everything_but_the_peers_is_reached(hermits: tuple[Scene, TapPool]) -> None:
    """Gateway, host, bystanders and the internet answer; no peer does."""
    scene, _ = hermits
    assert scene.observed() == scene.promised()


@requirement("ICC-1")
def test_no_frame_reaches_a_peer(apart: ThreeContainers) -> None:
    """To its MAC, to everybody, to groups; IP, ARP, ND or of any kind, tagged or not."""
    frames = list(addressed(apart, "b"))
    with apart.capture("a", "b", "c", GATEWAY) as wire:
        send_frame(apart.place("a"), *frames)
        for name in ("b", "c"):
            with apart.call(GATEWAY, name, Protocol.UDP, port=PORT) as call:
                call.say(CONTROL)
    assert len([item for item in wire.frames(at=apart.at("a")) if WORD in item.data]) == len(frames)
    assert [item for item in wire.frames(at=apart.at(GATEWAY)) if WORD in item.data]
    for name in ("b", "c"):
        seen = wire.frames(at=apart.at(name))
        assert [item for item in seen if CONTROL in item.data]
        assert [str(item) for item in seen if WORD in item.data] == []
        wire.expect_none(Ether(src=apart.mac("a")), at=apart.at(name))


@requirement("ICC-1")
def test_the_gateway_takes_nothing_to_a_peer(apart: ThreeContainers) -> None:
    """Nor does it answer in a peer's name: who sends by way of it is not let through."""
    with apart.capture("b") as wire:
        for target in ("b", HOST):
            packet = apart.ip("a", target, ttl=START_TTL) / UDP(dport=PORT) / WORD
            send_frame(apart.place("a"), Ether(src=apart.mac("a"), dst=apart.mac(GATEWAY)) / packet)
        with apart.call(GATEWAY, "b", Protocol.UDP, port=PORT) as call:
            call.say(CONTROL)
    assert [item for item in wire.frames() if CONTROL in item.data]
    assert [str(item) for item in wire.frames() if WORD in item.data] == []


@requirement("BR-26", "ICC-1")
def test_a_forged_source_does_not_leave_the_host(apart: ThreeContainers) -> None:
    """Neither a bystander's nor anybody's; what is properly said beside it does."""
    forged = [apart.address(NS1), apart.address(INTERNET), NOBODY[apart.family]]
    head = Ether(src=apart.mac("a"), dst=apart.mac(GATEWAY))
    posing = [apart.ip(source, ATTACKER) / UDP(dport=PORT) / WORD for source in forged]
    with apart.capture(GATEWAY, HOST) as wire:
        send_frame(apart.place("a"), *(head / packet for packet in posing))
        with apart.call("a", ATTACKER, Protocol.UDP, port=PORT) as call:
            call.say(CONTROL)
    for packet in posing:
        wire.expect_one(packet, at=apart.at(GATEWAY))
    seen = wire.frames(at=apart.at(HOST))
    assert [item for item in seen if CONTROL in item.data]
    assert [str(item) for item in seen if WORD in item.data] == []


@requirement("ICC-1", "NET-3")
def test_who_is_connected_later_is_apart_too(scene: Scene) -> None:
    """From those that are there, and they from it."""
    scene.network("later", icc=False)
    scene.containers(x=Bridge("later"), y=Bridge())
    scene.connect("y", "later")
    assert scene.observed() == scene.promised()


@requirement("ICC-1", "LIFE-7")
def test_who_is_started_again_is_apart_too(scene: Scene) -> None:
    """A port of the bridge anew."""
    scene.network("again", icc=False)
    scene.containers(x=Bridge("again"), y=Bridge("again"))
    scene["y"].stop()
    scene.start("y")
    assert scene.observed() == scene.promised()


@requirement("ICC-1", "NET-3")
def test_nor_does_a_frame_reach_a_peer_from_who_is_connected_later(scene: Scene) -> None:
    """Not even one of no protocol that anybody knows."""
    scene.network("later", icc=False)
    scene.containers(x=Bridge("later"), y=Bridge())
    before = scene["y"].net.links().keys()
    scene.connect("y", "later")
    (link,) = scene["y"].net.links().keys() - before
    assert heard_by(scene, "x", "later", link=link) == [CONTROL]


def heard_by(scene: Scene, who: str, network: str, *, link: str) -> list[bytes]:
    """What somebody hears of a frame of no protocol that `y` sends by a link, and the bridge."""
    bridge = scene.runtime.network_facts(network).interface
    assert bridge is not None
    with TapPool() as own, own.capture(scene[who].net) as wire:
        for place, by, word in (
            (scene["y"].net, link, WORD),
            (scene.place(GATEWAY), bridge, CONTROL),
        ):
            head = Ether(src=place.links()[by].mac, dst=EVERYBODY_MAC, type=EXPERIMENTAL)
            send_frame(place, head / word, link=by)
        scene.settle()
    return [word for word in (WORD, CONTROL) if any(word in item.data for item in wire.frames())]


def addressed(trio: ThreeContainers, target: str) -> Iterator[Packet]:
    """Frames from `a` that a peer would take, each with the same word in it."""
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
