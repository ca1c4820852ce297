"""Networks and containers that the mode suites share, in addition to the reference plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import pytest

from harness.adapters.protocol import Adapter, NetworkInfo, RuntimeRefused
from harness.model.features import Feature
from harness.model.plan import (
    ATTACKER,
    CONTAINER01,
    CONTAINER02,
    DEFAULT_NETWORK,
    FAMILIES,
    HOST,
    Bridge,
    ContainerSpec,
    Family,
    Mode,
    NetworkSpec,
    Plan,
    Publish,
)
from harness.model.topology import Address, Interface
from harness.plugin.fixtures import RuntimeStarter
from harness.plugin.marks import requirement
from harness.testbench.listener import Listener, Transport, free_port
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import LOOPBACKS, Scene
from harness.world.build import World
from suites.support.features import restarts

TWENTY = Plan(containers=tuple(ContainerSpec(f"member{n:02}") for n in range(20)))
_DUAL_STACK = pytest.param("dual-stack", marks=requirement("V6-1"))

in_each_family: Final = pytest.mark.parametrize(
    "network", ["default", _DUAL_STACK], indirect=True, scope="module"
)
"""Parameters: IPv4 on the default network, and IPv6 on a network with both families."""


@dataclass(frozen=True, slots=True)
class BridgeNetwork:
    """A network, the containers on it, and the family in which it is tested."""

    scene: Scene
    name: str
    containers: tuple[str, ...]
    family: Family = 4

    def facts(self) -> NetworkInfo:
        """Return what the runtime reports about the network."""
        return self.scene.runtime.network_facts(self.name)

    def gateway(self) -> Interface:
        """Return the bridge's address in the tested family, as the runtime reports it."""
        (gateway,) = (item for item in self.facts().gateways if item.version == self.family)
        return gateway


@pytest.fixture
def fresh_scene(start_runtime: RuntimeStarter) -> Iterator[Scene]:
    """Build an empty scene in a new world, in which no container has ever run."""
    with World.build() as world, start_runtime(world) as runtime, Scene(world, runtime) as made:
        yield made


@pytest.fixture(scope="module")
def twenty_containers(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Share twenty containers on the default network; tests must not change them."""
    with Scene(world, runtime, TWENTY) as made:
        yield made


@pytest.fixture(scope="module", params=["default", _DUAL_STACK, "user-defined"])
def network(
    world: World, runtime: Adapter, request: pytest.FixtureRequest
) -> Iterator[BridgeNetwork]:
    """Share containers on a network; tests must not change them.

    The default network has the containers of the reference plan. On the other networks, container
    `b` is restarted where the runtime can restart. A runtime without user-defined networks is
    tested on the default network instead.
    """
    if request.param == "default":
        cast = request.getfixturevalue("cast")
        yield BridgeNetwork(cast, DEFAULT_NETWORK, (CONTAINER01, CONTAINER02))
        return
    dual = request.param == "dual-stack"
    new = Feature.NETWORKS in runtime.features
    name = request.param if new else DEFAULT_NETWORK
    networks = (NetworkSpec(name, ipv6=dual),) if new else ()
    names = ("a", "b", "c")
    plan = Plan(
        networks=networks, containers=tuple(ContainerSpec(it, Bridge(name)) for it in names)
    )
    with Scene(world, runtime, plan) as made:
        if restarts(runtime):
            made["b"].stop()
            made.start("b")
        yield BridgeNetwork(made, name, names, 6 if dual else 4)


def assert_not_published(
    scene: Scene, mode: Mode, declared: Literal["refused", "warned"], transport: Transport
) -> None:
    """Assert that publishing a port in `mode` is refused by name or brings a warning.

    In both cases the port stays free on the host: a listener there receives every connection.
    """
    host, attacker = scene.netns(HOST), scene.netns(ATTACKER)
    before, port = host.snapshot(), free_port(host, transport)
    ports = (Publish(port, 80, transport),)
    if declared == "refused":
        assert "publish" in scene.refusal("guest", mode, ports=ports).said
        with pytest.raises(RuntimeRefused):
            scene.runtime.inspect("guest")
    else:
        assert scene.container("guest", mode, ports=ports).started.warnings
    assert before.changes(host.snapshot()) == []
    for family in FAMILIES:
        own = scene.world.address(HOST, family)
        calls: list[tuple[NetnsView, Address]] = [(attacker, own), (host, own)]
        with Listener(host, transport, family=family, port=port) as listener:
            for caller, address in [*calls, (host, LOOPBACKS[family])]:
                assert listener.reached_from(caller, at=address), f"{caller.name} calls {address}"
