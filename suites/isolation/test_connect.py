"""Connect and disconnect of a running container: they take effect at once, without side effects."""

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
from harness.testbench.packets.capture import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.dns import held
from suites.support.features import has_ipv6
from suites.support.open_flows import LENGTH, PORT, open_flow
from suites.support.three_containers import both_families

FIRST, SECOND, THIRD, FOURTH = "first", "second", "third", "fourth"
PUBLISHED: Final = 8199


@pytest.fixture
def connect_scene(scene: Scene) -> Scene:
    """Start `a` and `b` on one network, `c` on another one, and `d` on the default network."""
    dual = has_ipv6(scene.runtime)
    for name in (FIRST, SECOND):
        scene.network(name, ipv6=dual)
    scene.containers(a=Bridge(FIRST), b=Bridge(FIRST), c=Bridge(SECOND), d=Bridge())
    return scene


@pytest.fixture(scope="module")
def pair(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Share `left` and `right` on one of two networks; each test undoes its changes.

    The other network has a container too, because a bridge without ports has no link-local address.
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
def test_reachability_follows_connect_and_disconnect(connect_scene: Scene) -> None:
    """After each connect and disconnect, observed and promised reachability are equal."""
    assert connect_scene.observed() == connect_scene.promised()
    connect_scene.connect("a", SECOND)
    assert connect_scene.observed() == connect_scene.promised()
    connect_scene.disconnect("a", FIRST)
    assert connect_scene.observed() == connect_scene.promised()
    connect_scene.disconnect("a", SECOND)
    assert connect_scene.observed() == connect_scene.promised()
    connect_scene.connect("a", FIRST)
    assert connect_scene.observed() == connect_scene.promised()


@requirement("NET-3")
def test_disconnect_restores_the_state_before_connect(pair: Scene, host: NetnsView) -> None:
    """Disconnect restores the state before connect, in the container and on the host."""
    inside = pair["left"].net
    before = network_of(inside), host.snapshot()
    pair.connect("left", FOURTH)
    assert network_of(inside) != before[0]
    pair.disconnect("left", FOURTH)
    assert network_of(inside) == before[0]
    assert before[1].changes(host.snapshot()) == []


@requirement("NET-3")
@both_families
def test_flow_on_other_network_survives_connect_and_disconnect(pair: Scene, family: Family) -> None:
    """A flow on one network survives while its container is connected to another network.

    No packet of the flow is lost, retransmitted or rejected, also after disconnect.
    """
    inside = pair["left"].net
    before = inside.links()["eth0"], held(pair, "left", family)
    (address,) = held(pair, "right", family)
    with TapPool() as wires, open_flow(inside, pair["right"].net, address) as talk:
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
def test_bridge_mac_survives_connect_and_disconnect(pair: Scene) -> None:
    """A bridge keeps its MAC while a running container is connected to it and disconnected."""
    bridge = pair.runtime.network_facts(FOURTH).interface
    assert bridge is not None
    macs = [pair.netns(GATEWAY).links()[bridge].mac]
    for change in (pair.connect, pair.disconnect):
        change("left", FOURTH)
        macs.append(pair.netns(GATEWAY).links()[bridge].mac)
    assert len(set(macs)) == 1


@requirement("NET-3", "PUB-1", "PUB-6")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_published_ports_and_flows_survive_connect_and_disconnect(
    scene: Scene, transport: Transport
) -> None:
    """Published ports answer the LAN while their container is connected to another network.

    An open flow through a published port continues, with the same client address as before.
    """
    scene.network("home")
    scene.network("passing")
    ports = tuple(Publish(PUBLISHED + number, PORT + number, transport) for number in range(2))
    web, attacker = scene.container("web", Bridge("home"), ports=ports), scene.netns(ATTACKER)
    own = scene.world.address(HOST, 4)
    flow = open_flow(attacker, web.net, ANYWHERE[4], transport=transport, by=(own, PUBLISHED))
    with flow as talk, Listener(web.net, transport, port=PORT + 1) as listener:
        call: dict[str, Any] = {"at": own, "port": PUBLISHED + 1, "answered": True}
        before = listener.reached_from(attacker, **call)
        assert before
        for change in (scene.connect, scene.disconnect):
            change("web", "passing")
            exchange = listener.reached_from(attacker, **call)
            assert exchange
            assert exchange.seen[0] == before.seen[0]
            talk.exchange()


@requirement("NET-3", "LIFE-7")
def test_restarted_container_is_on_the_same_networks(connect_scene: Scene) -> None:
    """After a restart, a container is on the networks that it was on before, and on no others."""
    connect_scene.connect("a", SECOND)
    connect_scene.disconnect("a", FIRST)
    connect_scene["a"].stop()
    connect_scene.start("a")
    assert connect_scene.observed() == connect_scene.promised()
    assert connect_scene["a"].net.links().keys() == {"lo", "eth0"}


@requirement("NET-3")
def test_invalid_connect_and_disconnect_are_refused(pair: Scene, host: NetnsView) -> None:
    """An invalid connect or disconnect is refused and changes nothing.

    Connect is tried with a network that the container is on already, an unknown network and an
    unknown container. Disconnect is tried with a network that the container is not on, and an
    unknown one.
    """
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


def network_of(view: NetnsView) -> tuple[object, ...]:
    """Return the links, addresses and routes of a network namespace."""
    links = [(link.name, link.ifindex, link.mac, link.up) for link in view.links().values()]
    return links, view.interfaces(), sorted(view.routes(), key=str)
