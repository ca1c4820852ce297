"""What the suites of published ports share: a shop, a peer beside it, a stranger elsewhere."""

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
    MARKET,
    OWN,
    PORTS,
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
    """Every promise, once for each family."""
    chosen: Family = request.param
    return chosen


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Every promise, over TCP and over UDP."""
    chosen: Transport = request.param
    return chosen


@pytest.fixture(scope="package")
def market(world: World, runtime: Adapter, family: Family) -> Iterator[Scene]:
    """Look, do not change: `shop`, which publishes `PORTS` on every address, and others.

    `peer` is on its network, which is the default one where that has the family;
    `stranger` is on another, where the runtime has networks.
    """
    dual, here = family == 6, home(runtime, family)
    networks = [NetworkSpec(MARKET, ipv6=dual)] if here == Bridge(MARKET) else []
    ports = tuple(Publish(port, INSIDE, transport) for transport, port in PORTS.items())
    containers = [ContainerSpec("shop", here, ports=ports), ContainerSpec("peer", here)]
    if Feature.NETWORKS in runtime.features:
        networks.append(NetworkSpec("far", ipv6=dual))
        containers.append(ContainerSpec("stranger", Bridge("far")))
    plan = Plan(networks=tuple(networks), containers=tuple(containers))
    with Scene(world, runtime, plan) as made:
        made.ready()
        yield made


@pytest.fixture
def shop(market: Scene, transport: Transport, family: Family) -> Iterator[PublishedContainer]:
    """The shared shop, over one transport; it listens all the time."""
    with PublishedContainer(
        market, market["shop"], transport, family, PORTS[transport]
    ).open() as opened:
        yield opened


@pytest.fixture(scope="package")
def ground(world: World, runtime: Adapter) -> Iterator[Callable[[int], PublishNetwork]]:
    """The fair, for a port, with nobody but `BESIDE`; where there are networks it is on one."""
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
def numbers() -> Iterator[int]:
    """Ports, one for each test, with some beside it: what one has not given back is no other's."""
    return itertools.count(OWN + 10, 10)


@pytest.fixture
def fair(
    ground: Callable[[int], PublishNetwork], numbers: Iterator[int]
) -> Iterator[PublishNetwork]:
    """The fair for one test, which adds containers to it: they are removed afterwards."""
    made = ground(next(numbers))
    yield made
    scene = made.scene
    scene.remove(*(item.name for item in scene.plan.containers if item.name != BESIDE))
