"""As much as the runtime claims: tests that are about something else ask for no more."""

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
    """Whether its networks can have IPv6 beside IPv4."""
    return Feature.IPV6 in runtime.features


def families(runtime: Adapter) -> tuple[Family, ...]:
    """Those that a network with every family has."""
    return FAMILIES if has_ipv6(runtime) else (4,)


def lan(scene: Scene, name: str = "lan", *, family: Family = 4) -> Bridge:
    """The mode of who is on a network of one's own, made here; the default one where it has none.

    With IPv6 where there is such, and for a test of `family` 6 in any case. Who has IPv6 for
    containers on bridges has such a network, whether it claims what is promised of several or not.
    """
    if not (family == 6 or has_networks(scene.runtime)):
        return Bridge()
    scene.network(name, ipv6=has_ipv6(scene.runtime) or family == 6)
    return Bridge(name)


def another(scene: Scene, name: str = "another") -> str:
    """A network to be connected to: the default one, or one made here where that is no bridge."""
    if scene.runtime.dialect.default_network == "bridge":
        return DEFAULT_NETWORK
    scene.network(name)
    return name


def has_networks(runtime: Adapter) -> bool:
    """Whether networks can be made, of one kind at least that is open."""
    own = Feature.NETWORKS in runtime.features
    return own or {Feature.BRIDGE, Feature.IPV6} <= runtime.features


def can_start(runtime: Adapter, spec: ContainerSpec) -> bool:
    """Whether it claims whatever a container asks for."""
    return runtime.features.issuperset(of_container(spec, runtime.features))


def restarts(runtime: Adapter) -> bool:
    """Whether it starts a stopped container again."""
    return Feature.RESTART in runtime.features


def anybody(scene: Scene, name: str) -> Container:
    """A container, with as little network as there is."""
    modes: dict[Feature, Mode] = {Feature.NONE: Nothing(), Feature.HOST: Host()}
    there = (mode for feature, mode in modes.items() if feature in scene.runtime.features)
    return scene.container(name, next(there, Bridge()))


def crowd(scene: Scene) -> None:
    """Containers in every mode, on open and on closed networks."""
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
