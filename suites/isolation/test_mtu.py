"""The MTU that a user requests for a network, checked on each interface and on packets."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import GATEWAY, Bridge, ContainerSpec, Family, NetworkSpec, Plan, Protocol
from harness.plugin.marks import requirement
from harness.testbench.client import round_trip
from harness.testbench.netns_view import NetnsView
from harness.testbench.packets.capture import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.isolation.conftest import assert_network_refused
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
    """Containers `a` and `b`, started on a network with the requested MTU `mtu`."""

    trio: ThreeContainers
    mtu: int


@pytest.fixture(scope="module", params=[SMALL, LARGE], ids="mtu={}".format)
def mtu_scene(
    world: World, runtime: Adapter, request: pytest.FixtureRequest
) -> Iterator[tuple[Scene, TapPool, int]]:
    """Share two containers on a network with a requested MTU; tests must not change them."""
    dual = has_ipv6(runtime)
    plan = Plan(
        networks=(NetworkSpec(NETWORK, ipv6=dual, mtu=request.param),),
        containers=(ContainerSpec("a", Bridge(NETWORK)), ContainerSpec("b", Bridge(NETWORK))),
    )
    with Scene(world, runtime, plan) as scene, TapPool() as own:
        yield scene, own, request.param


@pytest.fixture(params=EACH_FAMILY)
def mtu_trio(
    mtu_scene: tuple[Scene, TapPool, int], wires: TapPool, request: pytest.FixtureRequest
) -> NetworkWithMtu:
    """Return the two containers, tested in one address family."""
    scene, own, mtu = mtu_scene
    return NetworkWithMtu(ThreeContainers(scene, request.param, NETWORK, wires, own), mtu)


@requirement("NET-8")
def test_every_interface_of_network_has_the_requested_mtu(
    mtu_scene: tuple[Scene, TapPool, int],
) -> None:
    """The bridge and both ends of each veth pair have the MTU that the network requests."""
    scene, _, mtu = mtu_scene
    host, bridge = scene.netns(GATEWAY).links(), scene.runtime.network_facts(NETWORK).interface
    assert bridge is not None
    by_index = {link.ifindex: link for link in host.values()}
    inside = [scene.netns(name).links()["eth0"] for name in ("a", "b")]
    outside = [by_index[link.peer or 0] for link in inside]
    assert [link.mtu for link in (*inside, *outside, host[bridge])] == [mtu] * 5


@requirement("NET-8", "NET-3")
def test_connected_interface_has_the_requested_mtu(scene: Scene) -> None:
    """After connect, a container's new interface has the MTU requested for its network.

    The interface on the other network keeps its MTU.
    """
    scene.network("later", mtu=SMALL)
    scene.network("first")
    container = scene.container("late", Bridge("first"))
    before = container.net.links()
    scene.connect("late", "later")
    after, host = container.net.links(), scene.netns(GATEWAY).links()
    (joined,) = (link for name, link in after.items() if name not in before)
    (end,) = (link for link in host.values() if link.ifindex == joined.peer)
    assert (joined.mtu, end.mtu) == (SMALL, SMALL)
    assert after["eth0"].mtu == before["eth0"].mtu != SMALL


@requirement("NET-8", "LIFE-7")
def test_restarted_container_has_the_requested_mtu(scene: Scene) -> None:
    """After a restart, a container's new veth pair and the bridge have the network's requested MTU.

    While the container is stopped, the bridge has no port.
    """
    network = scene.network("kept", mtu=SMALL)
    container = scene.container("again", Bridge("kept"))
    container.stop()
    container.start()
    eth0, bridge = container.net.links()["eth0"], network.facts.interface
    assert bridge is not None
    host = scene.netns(GATEWAY).links()
    (end,) = (link for link in host.values() if link.ifindex == eth0.peer)
    assert (eth0.mtu, end.mtu, host[bridge].mtu) == (SMALL, SMALL, SMALL)


@requirement("NET-8")
@pytest.mark.parametrize(("source", "target"), [("a", "b"), ("a", GATEWAY), (GATEWAY, "a")])
def test_packet_of_requested_mtu_arrives_and_larger_is_refused(
    mtu_trio: NetworkWithMtu, source: str, target: str
) -> None:
    """A packet as large as the requested MTU arrives. The sender's kernel refuses one byte more."""
    trio, largest = mtu_trio.trio, bytes(mtu_trio.mtu - HEADERS[mtu_trio.trio.family])
    with (
        trio.capture(target) as wire,
        trio.client(source, target, Protocol.UDP, port=9, own_port=OWN_PORT, whole=True) as call,
    ):
        call.send(largest)
        trio.settle()
        assert call.error() in ("", "port-unreachable")
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            call.send(largest + b"x")
    sent = trio.ip(source, target) / trio.request(Protocol.UDP, sport=OWN_PORT, dport=9)
    assert wire.expect_one(sent, at=trio.at(target)).length == ETHERNET + mtu_trio.mtu


@requirement("NET-8")
def test_larger_datagram_is_fragmented_to_the_requested_mtu(mtu_trio: NetworkWithMtu) -> None:
    """A datagram larger than the requested MTU is sent in fragments and reassembled by the peer."""
    trio, whole = mtu_trio.trio, os.urandom(2 * mtu_trio.mtu)
    with trio.capture("a") as wire:
        arrived, back = round_trip(trio.netns("a"), trio.netns("b"), trio.address("b"), whole)
    assert arrived == back == whole
    seen = wire.matching(trio.ip("a", "b"), at=trio.at("a"))
    assert len(seen) == 3
    assert max(frame.length for frame in seen) <= ETHERNET + mtu_trio.mtu


@requirement("NET-8")
@both_families
@pytest.mark.parametrize("mtu", ["below-minimum", "above-maximum"])
def test_network_with_mtu_out_of_range_is_refused(
    runtime: Adapter, host: NetnsView, family: Family, mtu: str
) -> None:
    """A network is refused if its MTU is below IP's minimum or above the interface's maximum.

    The minimum is 68 bytes for IPv4 (RFC 791) and 1280 bytes for IPv6 (RFC 8200).
    """
    wanted = 70_000 if mtu == "above-maximum" else {4: 67, 6: 1279}[family]
    assert_network_refused(runtime, host, ipv6=family == 6, mtu=wanted)
