"""Isolation of user-defined networks, tested with packets of every protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from harness.adapters.protocol import Adapter
from harness.model.plan import GATEWAY, Bridge, ContainerSpec, Protocol
from harness.model.topology import START_TTL
from harness.plugin.marks import requirement
from harness.testbench.packets.capture import TapPool
from harness.testbench.packets.craft import send_frame, send_packet
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.features import has_ipv6
from suites.support.packet_kinds import PORT, WORD, carrying, everything
from suites.support.three_containers import EACH_FAMILY, ThreeContainers

ONE, OTHER = "one", "other"
CONTROL: Final = b"from the host"


@pytest.fixture(scope="module", params=["other-network-first", "other-network-last"])
def two_networks(
    world: World, runtime: Adapter, request: pytest.FixtureRequest
) -> Iterator[tuple[Scene, TapPool]]:
    """Share `a` and `b` on one network and `c` on another one.

    A test parameter decides which network is created first.
    """
    dual = has_ipv6(runtime)
    isolated_trio = [
        (ONE, [ContainerSpec(name, Bridge(ONE)) for name in ("a", "b")]),
        (OTHER, [ContainerSpec("c", Bridge(OTHER))]),
    ]
    with Scene(world, runtime) as scene, TapPool() as own:
        for network, specs in (
            isolated_trio if request.param == "other-network-last" else isolated_trio[::-1]
        ):
            scene.network(network, ipv6=dual)
            for spec in specs:
                scene.container(spec.name, spec.mode)
        yield scene, own


@pytest.fixture(params=EACH_FAMILY)
def isolated_trio(
    two_networks: tuple[Scene, TapPool], wires: TapPool, request: pytest.FixtureRequest
) -> ThreeContainers:
    """Return the three containers, tested in one address family."""
    scene, own = two_networks
    return ThreeContainers(scene, request.param, ONE, wires, own)


@requirement("NET-2")
def test_containers_on_different_networks_do_not_reach_each_other(
    two_networks: tuple[Scene, TapPool],
) -> None:
    """Containers on different networks do not reach each other, whichever network is created first.

    All other reachability is as promised.
    """
    scene, _ = two_networks
    assert scene.observed() == scene.promised()


@requirement("NET-2")
@pytest.mark.parametrize("way", ["a-to-c", "c-to-a"])
def test_packets_of_every_protocol_do_not_cross_networks(
    isolated_trio: ThreeContainers, runtime: Adapter, way: str
) -> None:
    """A packet of any protocol crosses to another network only where the runtime declares it.

    Some packets look like a reply or like part of a flow. A peer is sent such packets too, and
    receives all but those that the runtime treats as invalid.
    """
    trio = isolated_trio
    source, target = ("a", "c") if way == "a-to-c" else ("c", "a")
    sent = list(everything(trio, source, target))
    beginning = sum(isinstance(packet.payload, UDP) for packet in sent)
    with trio.capture("a", "b", "c") as wire:
        for packet in sent:
            send_packet(trio.netns(source), packet)
        for packet in everything(trio, "a", "b"):
            send_packet(trio.netns("a"), packet)
        with trio.client(GATEWAY, target, Protocol.UDP, port=PORT) as call:
            call.send(CONTROL)
    assert beginning <= len(carrying(wire, trio, "a", "b", at="b")) <= len(sent)
    assert len(carrying(wire, trio, source, target, at=source)) == len(sent)
    seen = wire.frames(at=trio.at(target))
    assert [item for item in seen if CONTROL in item.data]
    others = [item for name in (target, "b") for item in carrying(wire, trio, name, at=target)]
    arrived = [str(item) for item in seen if WORD in item.data and item not in others]
    assert bool(arrived) == (runtime.dialect.isolation == "none"), arrived


@requirement("NET-2")
def test_gateway_does_not_forward_to_other_network(
    isolated_trio: ThreeContainers, runtime: Adapter
) -> None:
    """The gateway forwards a frame to another network only where the runtime declares it.

    The frames are addressed to the MACs of the gateway, the other network's bridge and the target.
    """
    trio = isolated_trio
    host = trio.netns(GATEWAY).links()
    bridge = trio.scene.runtime.network_facts(OTHER).interface
    assert bridge is not None
    packet = trio.ip("a", "c", ttl=START_TTL)
    macs = (host[bridge].mac, trio.mac("c"), trio.mac(GATEWAY))
    with trio.capture("a", "c") as wire:
        for port, mac in enumerate(macs, PORT + 1):  # each is a new flow
            datagram = UDP(sport=port, dport=PORT) / WORD
            send_frame(trio.netns("a"), Ether(src=trio.mac("a"), dst=mac) / packet / datagram)
        with trio.client(GATEWAY, "c", Protocol.UDP, port=PORT) as call:
            call.send(CONTROL)
    assert len(carrying(wire, trio, "a", "c", at="a")) == len(macs)
    seen = wire.frames(at=trio.at("c"))
    assert [item for item in seen if CONTROL in item.data]
    arrived = [str(item) for item in seen if WORD in item.data]
    assert bool(arrived) == (runtime.dialect.isolation == "none")
