"""A running container is connected to a network more, and taken off again: at once, and alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from scapy.layers.inet import ICMP, TCP

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.plan import (
    ATTACKER,
    GATEWAY,
    HOST,
    Bridge,
    ContainerSpec,
    Family,
    NetworkSpec,
    Plan,
    Publish,
)
from harness.plugin.marks import requirement
from harness.testbench.listener import ANYWHERE, TRANSPORTS, Listener, Transport
from harness.testbench.netns_view import NetnsView
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.dns import held
from suites.support.features import has_ipv6
from suites.support.open_flows import LENGTH, PORT, talking
from suites.support.three_containers import both_families

FIRST, SECOND, THIRD, FOURTH = "first", "second", "third", "fourth"
PUBLISHED: Final = 8199


@pytest.fixture
def mover(scene: Scene) -> Scene:
    """`a` is on one network with `b`, `c` on another, `d` on the default one."""
    dual = has_ipv6(scene.runtime)
    for name in (FIRST, SECOND):
        scene.network(name, ipv6=dual)
    scene.containers(a=Bridge(FIRST), b=Bridge(FIRST), c=Bridge(SECOND), d=Bridge())
    return scene


@pytest.fixture(scope="module")
def pair(world: World, runtime: Adapter) -> Iterator[Scene]:
    """`left` and `right` on one of two networks, for tests that put back what they change.

    Somebody is on the other too: a bridge that has never had a port has no link-local address.
    """
    dual = has_ipv6(runtime)
    plan = Plan(
        networks=tuple(NetworkSpec(name, ipv6=dual) for name in (THIRD, FOURTH)),
        containers=(
            ContainerSpec("left", Bridge(THIRD)),
            ContainerSpec("right", Bridge(THIRD)),
            ContainerSpec("far", Bridge(FOURTH)),
        ),
    )
    with Scene(world, runtime, plan) as made:
        yield made


@requirement("NET-3", "NET-2")
def test_what_it_reaches_follows_at_once(mover: Scene) -> None:
    """After each step the whole matrix is what the networks promise that it is on now."""
    assert mover.observed() == mover.promised()
    mover.connect("a", SECOND)
    assert mover.observed() == mover.promised()
    mover.disconnect("a", FIRST)
    assert mover.observed() == mover.promised()
    mover.disconnect("a", SECOND)
    assert mover.observed() == mover.promised()
    mover.connect("a", FIRST)
    assert mover.observed() == mover.promised()


@requirement("NET-3")
def test_what_is_taken_back_leaves_no_trace(pair: Scene, host: NetnsView) -> None:
    """Neither inside nor in the host; both are as they were before."""
    inside = pair["left"].net
    before = network_of(inside), host.snapshot()
    pair.connect("left", FOURTH)
    assert network_of(inside) != before[0]
    pair.disconnect("left", FOURTH)
    assert network_of(inside) == before[0]
    assert before[1].changes(host.snapshot()) == []


@requirement("NET-3")
@both_families
def test_a_flow_on_the_other_network_goes_on(pair: Scene, family: Family) -> None:
    """Nothing of it is lost, sent again, or refused, while networks come and go beside it."""
    inside = pair["left"].net
    before = inside.links()["eth0"], held(pair, "left", family)
    (address,) = held(pair, "right", family)
    with TapPool() as wires, talking(inside, pair["right"].net, address) as talk:
        with wires.capture(pair["right"].net) as wire:
            for _ in range(2):
                pair.connect("left", FOURTH)
                talk.exchange()
                pair.disconnect("left", FOURTH)
                talk.exchange()
            pair.settle()
        sent = [frame.packet for frame in wire.frames() if TCP in frame.packet]
        payload = [bytes(item[TCP].payload) for item in sent if len(item[TCP].payload) >= LENGTH]
        assert len(payload) == len(set(payload)) == 2 * 4
        assert not [item for item in sent if item[TCP].flags & (0x04 | 0x02)]
        wire.expect_none(ICMP(type=3))
    after = inside.links()["eth0"], held(pair, "left", family)
    assert (after[0].mac, after[0].ifindex, after[1]) == (
        before[0].mac,
        before[0].ifindex,
        before[1],
    )


@requirement("NET-3", "BR-14")
def test_the_bridge_keeps_its_mac(pair: Scene) -> None:
    """That of the network to which it is connected, and from which it is taken again."""
    bridge = pair.runtime.network_facts(FOURTH).interface
    assert bridge is not None
    macs = [pair.place(GATEWAY).links()[bridge].mac]
    for change in (pair.connect, pair.disconnect):
        change("left", FOURTH)
        macs.append(pair.place(GATEWAY).links()[bridge].mac)
    assert len(set(macs)) == 1


@requirement("NET-3", "PUB-1", "PUB-6")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_its_published_ports_go_on(scene: Scene, transport: Transport) -> None:
    """They answer to the LAN while it is connected to a network more, and after that.

    A flow that is open goes on, and whoever calls is seen as before.
    """
    scene.network("home")
    scene.network("passing")
    ports = tuple(Publish(PUBLISHED + number, PORT + number, transport) for number in range(2))
    shop, attacker = scene.container("shop", Bridge("home"), ports=ports), scene.place(ATTACKER)
    own = scene.world.address(HOST, 4)
    open_flow = talking(attacker, shop.net, ANYWHERE[4], transport=transport, by=(own, PUBLISHED))
    with open_flow as talk, Listener(shop.net, transport, port=PORT + 1) as ear:
        call: dict[str, Any] = {"at": own, "port": PUBLISHED + 1, "answered": True}
        before = ear.hears(attacker, **call)
        assert before
        for change in (scene.connect, scene.disconnect):
            change("shop", "passing")
            met = ear.hears(attacker, **call)
            assert met
            assert met.seen[0] == before.seen[0]
            talk.exchange()


@requirement("NET-3", "LIFE-7")
def test_connections_outlast_a_restart(mover: Scene) -> None:
    """Those that were made while it ran, and those that were ended."""
    mover.connect("a", SECOND)
    mover.disconnect("a", FIRST)
    mover["a"].stop()
    mover.start("a")
    assert mover.observed() == mover.promised()
    assert mover["a"].net.links().keys() == {"lo", "eth0"}


@requirement("NET-3")
def test_what_cannot_be_connected_is_refused(pair: Scene, host: NetnsView) -> None:
    """Twice to one network, to one that is not there, off one that it is not on: all stays."""
    before = host.snapshot(), pair["left"].net.snapshot()
    runtime = pair.runtime
    for verb, name, network in (
        (runtime.connect, "left", THIRD),
        (runtime.connect, "left", "nowhere"),
        (runtime.connect, "nobody", THIRD),
        (runtime.disconnect, "left", FOURTH),
        (runtime.disconnect, "left", "nowhere"),
    ):
        with pytest.raises(RuntimeRefused):
            verb(name, network)
    assert before[0].changes(host.snapshot()) == []
    assert before[1].changes(pair["left"].net.snapshot()) == []


def network_of(place: NetnsView) -> tuple[object, ...]:
    """Links, addresses and routes of a container."""
    links = [(link.name, link.ifindex, link.mac, link.up) for link in place.links().values()]
    return links, place.interfaces(), sorted(place.routes(), key=str)
