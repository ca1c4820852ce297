"""What the suites of published ports share: a shop, a peer beside it, a stranger elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.adapters.protocol import Adapter, Feature
from harness.model import FAMILIES, Bridge, ContainerSpec, Family, NetworkSpec, Plan, Publish
from harness.scene import Scene
from harness.traffic import TRANSPORTS, Transport
from harness.world.build import World
from suites.ports.fair import BESIDE, Fair
from suites.ports.shop import INSIDE, MARKET, PORTS, Shop, home
from suites.trio import family

__all__ = ["family"]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Every promise, over TCP and over UDP."""
    chosen: Transport = request.param
    return chosen


@pytest.fixture(scope="package")
def market(world: World, runtime: Adapter, family: Family) -> Iterator[Scene]:
    """Look, do not change: `shop`, which publishes `PORTS` on every address, and others.

    `peer` is on its network, which is the default one where the family is IPv4;
    `stranger` is on another.
    """
    dual = family == 6
    networks = (NetworkSpec(MARKET, ipv6=True),) if dual else ()
    ports = tuple(Publish(port, INSIDE, transport) for transport, port in PORTS.items())
    plan = Plan(
        networks=(*networks, NetworkSpec("far", ipv6=dual)),
        containers=(
            ContainerSpec("shop", home(family), ports=ports),
            ContainerSpec("peer", home(family)),
            ContainerSpec("stranger", Bridge("far")),
        ),
    )
    with Scene(world, runtime, plan) as made:
        yield made


@pytest.fixture
def shop(market: Scene, transport: Transport, family: Family) -> Iterator[Shop]:
    """The shared shop, over one transport; it listens all the time."""
    with Shop(market, market["shop"], transport, family, PORTS[transport]).open() as opened:
        yield opened


@pytest.fixture(scope="package")
def ground(world: World, runtime: Adapter) -> Iterator[Fair]:
    """The fair, with nobody but `BESIDE`; where the runtime has networks it is on one of them."""
    networks: tuple[NetworkSpec, ...] = ()
    families: tuple[Family, ...] = (4,)
    home = Bridge()
    if Feature.NETWORKS in runtime.features:
        families = FAMILIES if Feature.IPV6 in runtime.features else (4,)
        networks, home = (NetworkSpec("fair", ipv6=6 in families),), Bridge("fair")
    plan = Plan(networks=networks, containers=(ContainerSpec(BESIDE, home),))
    with Scene(world, runtime, plan) as made:
        yield Fair(made, home, families)


@pytest.fixture
def fair(ground: Fair) -> Iterator[Fair]:
    """The fair for one test, which adds containers to it: they are removed afterwards."""
    scene = ground.scene
    yield ground
    scene.remove(*(item.name for item in scene.plan.containers if item.name != BESIDE))
