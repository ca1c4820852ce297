"""A network with an MTU of its own: at every interface, and on the wire to the byte."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import GATEWAY, Bridge, ContainerSpec, Family, NetworkSpec, Plan, Protocol
from harness.plugin.marks import requirement
from harness.testbench.client import there_and_back
from harness.testbench.netns_view import NetnsView
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.isolation.refusing import refused
from suites.support.features import has_ipv6
from suites.support.three_containers import EACH_FAMILY, ThreeContainers, both_families

OWN_PORT: Final = 31061
ETHERNET: Final = 14
HEADERS: Final = {4: 20 + 8, 6: 40 + 8}
"""Lengths of an Ethernet header, and of an IP and a UDP header, in bytes."""
SMALL: Final = 1300
LARGE: Final = 4000
NETWORK = "of-its-own-size"


class NetworkWithMtu(NamedTuple):
    """Containers `a` and `b` that were started on a network with this MTU."""

    trio: ThreeContainers
    mtu: int


@pytest.fixture(scope="module", params=[SMALL, LARGE])
def sized_scene(
    world: World, runtime: Adapter, request: pytest.FixtureRequest
) -> Iterator[tuple[Scene, TapPool, int]]:
    """Two containers on such a network: look, do not change."""
    dual = has_ipv6(runtime)
    plan = Plan(
        networks=(NetworkSpec(NETWORK, ipv6=dual, mtu=request.param),),
        containers=(ContainerSpec("a", Bridge(NETWORK)), ContainerSpec("b", Bridge(NETWORK))),
    )
    with Scene(world, runtime, plan) as scene, TapPool() as own:
        yield scene, own, request.param


@pytest.fixture(params=EACH_FAMILY)
def sized(
    sized_scene: tuple[Scene, TapPool, int], wires: TapPool, request: pytest.FixtureRequest
) -> NetworkWithMtu:
    """The same, as one address family has it."""
    scene, own, mtu = sized_scene
    return NetworkWithMtu(ThreeContainers(scene, request.param, NETWORK, wires, own), mtu)


@requirement("NET-8")
def test_every_interface_has_it(sized_scene: tuple[Scene, TapPool, int]) -> None:
    """The bridge, and both ends of each veth pair."""
    scene, _, mtu = sized_scene
    host, bridge = scene.place(GATEWAY).links(), scene.runtime.network_facts(NETWORK).interface
    assert bridge is not None
    by_index = {link.ifindex: link for link in host.values()}
    inside = [scene.place(name).links()["eth0"] for name in ("a", "b")]
    outside = [by_index[link.peer or 0] for link in inside]
    assert [link.mtu for link in (*inside, *outside, host[bridge])] == [mtu] * 5


@requirement("NET-8", "NET-3")
def test_who_is_connected_later_has_it_too(scene: Scene) -> None:
    """On that interface; the one on the other network keeps its own."""
    scene.network("later", mtu=SMALL)
    scene.network("first")
    container = scene.container("late", Bridge("first"))
    before = container.net.links()
    scene.connect("late", "later")
    after, host = container.net.links(), scene.place(GATEWAY).links()
    (joined,) = (link for name, link in after.items() if name not in before)
    (end,) = (link for link in host.values() if link.ifindex == joined.peer)
    assert (joined.mtu, end.mtu) == (SMALL, SMALL)
    assert after["eth0"].mtu == before["eth0"].mtu != SMALL


@requirement("NET-8", "LIFE-7")
def test_who_is_started_again_has_it_too(scene: Scene) -> None:
    """At both ends of its veth pair, which are new, and at the bridge, which had no port left."""
    network = scene.network("kept", mtu=SMALL)
    container = scene.container("again", Bridge("kept"))
    container.stop()
    container.start()
    eth0, bridge = container.net.links()["eth0"], network.facts.interface
    assert bridge is not None
    host = scene.place(GATEWAY).links()
    (end,) = (link for link in host.values() if link.ifindex == eth0.peer)
    assert (eth0.mtu, end.mtu, host[bridge].mtu) == (SMALL, SMALL, SMALL)


@requirement("NET-8")
@pytest.mark.parametrize(("source", "target"), [("a", "b"), ("a", GATEWAY), (GATEWAY, "a")])
def test_a_packet_may_be_as_large_and_no_larger(
    sized: NetworkWithMtu, source: str, target: str
) -> None:
    """One of just that size arrives whole, and the sender's kernel refuses one byte more."""
    trio, largest = sized.trio, bytes(sized.mtu - HEADERS[sized.trio.family])
    with (
        trio.capture(target) as wire,
        trio.call(source, target, Protocol.UDP, port=9, own_port=OWN_PORT, whole=True) as call,
    ):
        call.say(largest)
        trio.settle()
        assert call.told() in ("", "port-unreachable")
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            call.say(largest + b"x")
    sent = trio.ip(source, target) / trio.request(Protocol.UDP, sport=OWN_PORT, dport=9)
    assert wire.expect_one(sent, at=trio.at(target)).length == ETHERNET + sized.mtu


@requirement("NET-8")
def test_what_is_larger_goes_in_fragments(sized: NetworkWithMtu) -> None:
    """None of them larger than that, and at the peer everything is put together again."""
    trio, whole = sized.trio, os.urandom(2 * sized.mtu)
    with trio.capture("a") as wire:
        arrived, back = there_and_back(trio.place("a"), trio.place("b"), trio.address("b"), whole)
    assert arrived == back == whole
    seen = wire.matching(trio.ip("a", "b"), at=trio.at("a"))
    assert len(seen) == 3
    assert max(frame.length for frame in seen) <= ETHERNET + sized.mtu


@requirement("NET-8")
@both_families
@pytest.mark.parametrize("mtu", ["too small", "too large"])
def test_what_no_link_can_have_is_refused(
    runtime: Adapter, host: NetnsView, family: Family, mtu: str
) -> None:
    """Below what IP works with (RFC 791, RFC 8200), or above what an interface takes."""
    wanted = 70_000 if mtu == "too large" else {4: 67, 6: 1279}[family]
    refused(runtime, host, ipv6=family == 6, mtu=wanted)
