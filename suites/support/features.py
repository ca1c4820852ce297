"""Features that the runtime claims, for tests of other subjects."""

from __future__ import annotations

from harness.adapters.protocol import Adapter
from harness.model.features import Feature, has_default_network, of_container
from harness.model.plan import (
    DEFAULT_NETWORK,
    FAMILIES,
    Bridge,
    ContainerSpec,
    Family,
    Host,
    Mode,
    Nothing,
)
from harness.testbench.container import Container
from harness.testbench.scene import Scene


def has_ipv6(runtime: Adapter) -> bool:
    """Return True if the runtime's networks can have IPv6 beside IPv4."""
    return Feature.IPV6 in runtime.features


def families(runtime: Adapter) -> tuple[Family, ...]:
    """Return the families that a network can have."""
    return FAMILIES if has_ipv6(runtime) else (4,)


def lan(scene: Scene, name: str = "lan", *, family: Family = 4) -> Bridge:
    """Return the mode for a user-defined network, created here, or else the default one.

    The network has IPv6 where the runtime claims it, and always for a test of `family` 6. A runtime
    with IPv6 on bridges can create it, whether or not it claims several networks.
    """
    if not (family == 6 or has_networks(scene.runtime)):
        return Bridge()
    scene.network(name, ipv6=has_ipv6(scene.runtime) or family == 6)
    return Bridge(name)


def another(scene: Scene, name: str = "another") -> str:
    """Return a network to connect to: the default one if it is a bridge, otherwise a new one."""
    if scene.runtime.dialect.default_network == "bridge":
        return DEFAULT_NETWORK
    scene.network(name)
    return name


def has_networks(runtime: Adapter) -> bool:
    """Return True if the runtime can create at least one kind of open network."""
    own = Feature.NETWORKS in runtime.features
    return own or {Feature.BRIDGE, Feature.IPV6} <= runtime.features


def can_start(runtime: Adapter, spec: ContainerSpec) -> bool:
    """Return True if the runtime claims all features that a container needs."""
    return runtime.features.issuperset(of_container(spec, runtime.features))


def restarts(runtime: Adapter) -> bool:
    """Return True if the runtime can restart a stopped container."""
    return Feature.RESTART in runtime.features


def minimal_container(scene: Scene, name: str) -> Container:
    """Start a container with as little network as possible."""
    modes: dict[Feature, Mode] = {Feature.NONE: Nothing(), Feature.HOST: Host()}
    there = (mode for feature, mode in modes.items() if feature in scene.runtime.features)
    return scene.container(name, next(there, Bridge()))


def every_mode(scene: Scene) -> None:
    """Start containers in every claimed mode, on open and internal networks."""
    claimed = scene.runtime.features
    if has_networks(scene.runtime):
        own = lan(scene)
        scene.containers(a=own, b=own)
    if Feature.INTERNAL in claimed:
        scene.network("closed", internal=True)
        scene.containers(f=Bridge("closed"))
    if has_default_network(claimed):
        scene.containers(c=Bridge())
    if Feature.HOST in claimed:
        scene.containers(d=Host())
    if Feature.NONE in claimed:
        scene.containers(e=Nothing())
