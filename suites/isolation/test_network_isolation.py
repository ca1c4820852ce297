"""Containers on different networks: whatever is sent from one to another does not arrive."""

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
from harness.testbench.packets.craft import send_frame, send_packet
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.features import has_ipv6
from suites.support.packet_kinds import PORT, WORD, everything, telling
from suites.support.three_containers import EACH_FAMILY, ThreeContainers

ONE, OTHER = "one", "other"
CONTROL: Final = b"from the host"


@pytest.fixture(scope="module", params=["made before", "made after"])
def apart(
    world: World, runtime: Adapter, request: pytest.FixtureRequest
) -> Iterator[tuple[Scene, TapPool]]:
    """`a` and `b` on one network, and `c` on another, which came before it or after them."""
    dual = has_ipv6(runtime)
    sides = [
        (ONE, [ContainerSpec(name, Bridge(ONE)) for name in ("a", "b")]),
        (OTHER, [ContainerSpec("c", Bridge(OTHER))]),
    ]
    with Scene(world, runtime) as scene, TapPool() as own:
        for network, specs in sides if request.param == "made after" else sides[::-1]:
            scene.network(network, ipv6=dual)
            for spec in specs:
                scene.container(spec.name, spec.mode)
        yield scene, own


@pytest.fixture(params=EACH_FAMILY)
def sides(
    apart: tuple[Scene, TapPool], wires: TapPool, request: pytest.FixtureRequest
) -> ThreeContainers:
    """The same, as one address family has it."""
    scene, own = apart
    return ThreeContainers(scene, request.param, ONE, wires, own)


@requirement("NET-2")
def test_whichever_came_first_they_do_not_reach_each_other(apart: tuple[Scene, TapPool]) -> None:
    """Nor does either lose anything that it is to reach."""
    scene, _ = apart
    assert scene.observed() == scene.promised()


@requirement("NET-2")
@pytest.mark.parametrize("way", ["there", "back"])
def test_nothing_of_any_protocol_arrives(
    sides: ThreeContainers, runtime: Adapter, way: str
) -> None:
    """As little what looks like an answer, or like part of a flow, as what begins one.

    A peer gets the same, but for what its runtime holds to belong to no flow at all.
    """
    trio = sides
    source, target = ("a", "c") if way == "there" else ("c", "a")
    sent = list(everything(trio, source, target))
    beginning = sum(isinstance(packet.payload, UDP) for packet in sent)
    with trio.capture("a", "b", "c") as wire:
        for packet in sent:
            send_packet(trio.place(source), packet)
        for packet in everything(trio, "a", "b"):
            send_packet(trio.place("a"), packet)
        with trio.call(GATEWAY, target, Protocol.UDP, port=PORT) as call:
            call.say(CONTROL)
    assert beginning <= len(telling(wire, trio, "a", "b", at="b")) <= len(sent)
    assert len(telling(wire, trio, source, target, at=source)) == len(sent)
    seen = wire.frames(at=trio.at(target))
    assert [item for item in seen if CONTROL in item.data]
    others = [item for name in (target, "b") for item in telling(wire, trio, name, at=target)]
    arrived = [str(item) for item in seen if WORD in item.data and item not in others]
    assert bool(arrived) == (runtime.dialect.isolation == "none"), arrived


@requirement("NET-2")
def test_nothing_arrives_by_the_other_networks_gateway(
    sides: ThreeContainers, runtime: Adapter
) -> None:
    """Nor does it in a frame that is for the other bridge's MAC, or the stranger's own."""
    trio = sides
    host = trio.place(GATEWAY).links()
    bridge = trio.scene.runtime.network_facts(OTHER).interface
    assert bridge is not None
    packet = trio.ip("a", "c", ttl=START_TTL)
    macs = (host[bridge].mac, trio.mac("c"), trio.mac(GATEWAY))
    with trio.capture("a", "c") as wire:
        for port, mac in enumerate(macs, PORT + 1):  # each a flow that is not known yet
            datagram = UDP(sport=port, dport=PORT) / WORD
            send_frame(trio.place("a"), Ether(src=trio.mac("a"), dst=mac) / packet / datagram)
        with trio.call(GATEWAY, "c", Protocol.UDP, port=PORT) as call:
            call.say(CONTROL)
    assert len(telling(wire, trio, "a", "c", at="a")) == len(macs)
    seen = wire.frames(at=trio.at("c"))
    assert [item for item in seen if CONTROL in item.data]
    arrived = [str(item) for item in seen if WORD in item.data]
    assert bool(arrived) == (runtime.dialect.isolation == "none")
