"""Fixtures with published ports: the container, a peer, and a container on another network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import FAMILIES, Bridge, ContainerSpec, Family, NetworkSpec, Plan, Publish
from harness.plugin.marks import requirement
from harness.testbench.listener import TRANSPORTS, Transport
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.ports.published import (
    BESIDE,
    INSIDE,
    OWN,
    PORTS,
    SHARED_NETWORK,
    PublishedContainer,
    PublishNetwork,
    has_taps,
    home,
)
from suites.support.features import families, has_ipv6


@pytest.fixture(
    scope="package",
    params=[
        pytest.param(4, id="IPv4"),
        pytest.param(6, id="IPv6", marks=requirement("PUB-12")),
    ],
)
def family(request: pytest.FixtureRequest) -> Family:
    """Return the address family; every test runs in each."""
    chosen: Family = request.param
    return chosen


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Return the transport; every test runs over TCP and over UDP."""
    chosen: Transport = request.param
    return chosen


@pytest.fixture(scope="package")
def ports_scene(world: World, runtime: Adapter, family: Family) -> Iterator[Scene]:
    """Share `published`, which publishes `PORTS` on every address; tests must not change it.

    `peer` is on the same network. This is the default network if that has the family, and otherwise
    a user-defined one. `outside` is on another network, where the runtime has networks.
    """
    dual, here = family == 6, home(runtime, family)
    networks = [NetworkSpec(SHARED_NETWORK, ipv6=dual)] if here == Bridge(SHARED_NETWORK) else []
    ports = tuple(Publish(port, INSIDE, transport) for transport, port in PORTS.items())
    containers = [ContainerSpec("published", here, ports=ports), ContainerSpec("peer", here)]
    if Feature.NETWORKS in runtime.features:
        networks.append(NetworkSpec("far", ipv6=dual))
        containers.append(ContainerSpec("outside", Bridge("far")))
    plan = Plan(networks=tuple(networks), containers=tuple(containers))
    with Scene(world, runtime, plan) as made:
        made.ready()
        yield made


@pytest.fixture
def published(
    ports_scene: Scene, transport: Transport, family: Family
) -> Iterator[PublishedContainer]:
    """Return the shared container with one of its ports, in one family, with an open listener."""
    with PublishedContainer(
        ports_scene, ports_scene["published"], transport, family, PORTS[transport]
    ).open() as opened:
        yield opened


@pytest.fixture(scope="package")
def shared_network(world: World, runtime: Adapter) -> Iterator[Callable[[int], PublishNetwork]]:
    """Return a function from a host port to a network that tests share; only `BESIDE` is on it."""
    networks: tuple[NetworkSpec, ...] = ()
    those: tuple[Family, ...] = (4,)
    where = Bridge()
    if Feature.NETWORKS in runtime.features and not has_taps(runtime):
        those = families(runtime)
        networks, where = (NetworkSpec("fair", ipv6=6 in those),), Bridge("fair")
    elif has_taps(runtime) and has_ipv6(runtime):
        those = FAMILIES
    plan = Plan(networks=networks, containers=(ContainerSpec(BESIDE, where),))
    with Scene(world, runtime, plan) as made:
        yield partial(PublishNetwork, made, where, those)


@pytest.fixture(scope="package")
def port_numbers() -> Iterator[int]:
    """Yield host ports in steps of 10, so that a port still in use disturbs no later test."""
    return itertools.count(OWN + 10, 10)


@pytest.fixture
def publish_network(
    shared_network: Callable[[int], PublishNetwork], port_numbers: Iterator[int]
) -> Iterator[PublishNetwork]:
    """Yield the shared network, and remove the containers that the test adds."""
    made = shared_network(next(port_numbers))
    yield made
    scene = made.scene
    scene.remove(*(item.name for item in scene.plan.containers if item.name != BESIDE))
