"""The way out of whoever is connected to a network more: it stays, and so does what goes by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import HOST, Bridge, ContainerSpec, Family, NetworkSpec, Plan
from harness.model.topology import pick
from harness.plugin.marks import requirement
from harness.testbench.listener import TRANSPORTS, Listener, introduce
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.guard import LeakGuard
from linux.rtnetlink_dump import Route
from suites.support.dns import held
from suites.support.features import has_ipv6
from suites.support.open_flows import talking
from suites.support.three_containers import both_families

HOME, BESIDE, PLAIN = "home", "more", "plain"
"""By name the first is that of the way out, where a runtime goes by that."""
NAME: Final = "mover"


@pytest.fixture(scope="module")
def town(world: World, runtime: Adapter) -> Iterator[Scene]:
    """The mover, on one of three networks, the last without IPv6: tests put back what they do.

    Somebody is on each: a bridge that has never had a port has no link-local address.
    """
    dual = has_ipv6(runtime)
    networks = (NetworkSpec(HOME, ipv6=dual), NetworkSpec(BESIDE, ipv6=dual), NetworkSpec(PLAIN))
    others = (ContainerSpec(f"of-{item.name}", Bridge(item.name)) for item in networks)
    plan = Plan(networks=networks, containers=(ContainerSpec(NAME, Bridge(HOME)), *others))
    with Scene(world, runtime, plan) as made:
        yield made


@requirement("NET-3", "BR-7")
@both_families
def test_a_flow_to_the_internet_goes_on(town: Scene, internet: NetnsView, family: Family) -> None:
    """Who was called speaks next, after each change: the translation of it is still known."""
    address = pick(town.world.topology.internet, family).ip
    with talking(town[NAME].net, internet, address) as talk:
        with connected(town, BESIDE):
            talk.exchange()
        talk.exchange()


@requirement("NET-3", "V6-1")
def test_a_network_without_ipv6_leaves_the_way_out_by_ipv6(town: Scene) -> None:
    """The default route stays, and the internet is reached by it, for as long as both are there."""
    mover = town[NAME].net
    before = default_routes(mover, 6)
    assert before
    with connected(town, PLAIN):
        assert default_routes(mover, 6) == before
        introduce(mover, pick(town.world.topology.internet, 6).ip, "tcp")
    assert default_routes(mover, 6) == before


@requirement("NET-3", "LIFE-1")
@both_families
def test_nothing_is_remembered_of_an_address_that_was_left(
    scene: Scene, family: Family, guard: LeakGuard
) -> None:
    """Taken off a network, neither flows nor neighbours of the address that it had there stay.

    Where the runtime declares that it leaves those to the kernel, nothing else stays.
    """
    for network in ("kept", "left"):
        scene.network(network, ipv6=family == 6)
    scene.containers(guest=Bridge("kept"), stays=Bridge("left"))
    host, guest, stays = scene.place(HOST), scene["guest"].net, scene["stays"].net
    with guard.holding():
        scene.connect("guest", "left")
        (address,) = held(scene, "guest", family, "left")
        for transport in TRANSPORTS:
            for caller in (host, stays):
                with Listener(guest, transport, family=family) as ear:
                    assert ear.hears(caller, at=address, answered=True)
        scene.disconnect("guest", "left")


@contextmanager
def connected(town: Scene, network: str) -> Iterator[None]:
    """The mover is on one network more while the body runs."""
    town.connect(NAME, network)
    try:
        yield
    finally:
        town.disconnect(NAME, network)


def default_routes(place: NetnsView, family: Family) -> list[Route]:
    """The default routes of a place, in one family."""
    return [route for route in place.routes() if route.family == family and not route.destination]
