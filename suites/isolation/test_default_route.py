"""The default route of a container that is connected to another network, and flows that use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import HOST, Bridge, ContainerSpec, Family, NetworkSpec, Plan
from harness.model.topology import pick
from harness.plugin.marks import requirement
from harness.testbench.listener import TRANSPORTS, Listener, ask_echo_service
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.leak_guard import LeakGuard
from linux.rtnetlink_dump import Route
from suites.support.dns import held
from suites.support.features import has_ipv6
from suites.support.open_flows import open_flow
from suites.support.three_containers import both_families

HOME, BESIDE, PLAIN = "home", "more", "plain"
"""Networks, in the order by which some runtimes choose the network of the default route."""
NAME: Final = "mover"


@pytest.fixture(scope="module")
def route_scene(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Share a container on one of three networks; the third network has no IPv6.

    Each test undoes its changes. Each network has another container, because a bridge without ports
    has no link-local address.
    """
    dual = has_ipv6(runtime)
    networks = (NetworkSpec(HOME, ipv6=dual), NetworkSpec(BESIDE, ipv6=dual), NetworkSpec(PLAIN))
    others = (ContainerSpec(f"of-{item.name}", Bridge(item.name)) for item in networks)
    plan = Plan(networks=networks, containers=(ContainerSpec(NAME, Bridge(HOME)), *others))
    with Scene(world, runtime, plan) as made:
        yield made


@requirement("NET-3", "BR-7")
@both_families
def test_flow_to_internet_survives_connect_and_disconnect(
    route_scene: Scene, internet: NetnsView, family: Family
) -> None:
    """A flow to the internet survives while its container is connected to another network.

    The server sends first after each change. Its data arrives only if conntrack still has the flow.
    """
    address = pick(route_scene.world.topology.internet, family).ip
    with open_flow(route_scene[NAME].net, internet, address) as talk:
        with connected(route_scene, BESIDE):
            talk.exchange()
        talk.exchange()


@requirement("NET-3", "V6-1")
def test_ipv6_default_route_survives_connect_to_ipv4_network(route_scene: Scene) -> None:
    """A container keeps its IPv6 default route when it is connected to a network without IPv6."""
    mover = route_scene[NAME].net
    before = default_routes(mover, 6)
    assert before
    with connected(route_scene, PLAIN):
        assert default_routes(mover, 6) == before
        ask_echo_service(mover, pick(route_scene.world.topology.internet, 6).ip, "tcp")
    assert default_routes(mover, 6) == before


@requirement("NET-3", "LIFE-1")
@both_families
def test_disconnect_removes_flows_and_neighbours_of_the_address(
    scene: Scene, family: Family, guard: LeakGuard
) -> None:
    """Disconnect removes the conntrack and neighbour entries of the container's address.

    A runtime may declare that these entries are left to the kernel. Even then nothing else stays.
    """
    for network in ("kept", "left"):
        scene.network(network, ipv6=family == 6)
    scene.containers(guest=Bridge("kept"), stays=Bridge("left"))
    host, guest, stays = scene.netns(HOST), scene["guest"].net, scene["stays"].net
    with guard.holding():
        scene.connect("guest", "left")
        (address,) = held(scene, "guest", family, "left")
        for transport in TRANSPORTS:
            for caller in (host, stays):
                with Listener(guest, transport, family=family) as listener:
                    assert listener.reached_from(caller, at=address, answered=True)
        scene.disconnect("guest", "left")


@contextmanager
def connected(route_scene: Scene, network: str) -> Iterator[None]:
    """Keep the container connected to another network while the body runs."""
    route_scene.connect(NAME, network)
    try:
        yield
    finally:
        route_scene.disconnect(NAME, network)


def default_routes(view: NetnsView, family: Family) -> list[Route]:
    """Return the default routes of one family."""
    return [route for route in view.routes() if route.family == family and not route.destination]
