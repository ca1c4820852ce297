"""Helpers for tests that must adapt to the features that an adapter declares."""

from __future__ import annotations

from typing import Final

import pytest

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

ipv4_and_ipv6: Final = pytest.mark.parametrize("family", FAMILIES, ids="IPv{}".format)
"""Both address families, for tests of requirements that cover IPv6 themselves, without V6-1."""


def has_ipv6(runtime: Adapter) -> bool:
    """Return True if the runtime's networks can have IPv6 in addition to IPv4."""
    return Feature.IPV6 in runtime.features


def families(runtime: Adapter) -> tuple[Family, ...]:
    """Return the address families that a network of the runtime can have."""
    return FAMILIES if has_ipv6(runtime) else (4,)


def lan(scene: Scene, name: str = "lan", *, family: Family = 4) -> Bridge:
    """Create a user-defined network and return its mode, or return that of the default network.

    The default network is used if the runtime has no others. The new network has IPv6 if the
    adapter declares IPv6, and always if `family` is 6. A runtime with bridges and IPv6 can create
    one such network even if its adapter does not declare `networks`.
    """
    if not (family == 6 or has_networks(scene.runtime)):
        return Bridge()
    scene.network(name, ipv6=has_ipv6(scene.runtime) or family == 6)
    return Bridge(name)


def another(scene: Scene, name: str = "another") -> str:
    """Return a network to which a container can be connected.

    This is the default network if it is a bridge, otherwise a new one.
    """
    if scene.runtime.dialect.default_network == "bridge":
        return DEFAULT_NETWORK
    scene.network(name)
    return name


def has_networks(runtime: Adapter) -> bool:
    """Return True if the runtime can create at least one kind of network that is not internal."""
    own = Feature.NETWORKS in runtime.features
    return own or {Feature.BRIDGE, Feature.IPV6} <= runtime.features


def can_start(runtime: Adapter, spec: ContainerSpec) -> bool:
    """Return True if the adapter declares all features that a container needs."""
    return runtime.features.issuperset(of_container(spec, runtime.features))


def restarts(runtime: Adapter) -> bool:
    """Return True if the runtime can restart a stopped container."""
    return Feature.RESTART in runtime.features


def minimal_container(scene: Scene, name: str) -> Container:
    """Start a container in the mode with the least network that the adapter declares."""
    modes: dict[Feature, Mode] = {Feature.NONE: Nothing(), Feature.HOST: Host()}
    there = (mode for feature, mode in modes.items() if feature in scene.runtime.features)
    return scene.container(name, next(there, Bridge()))


def every_mode(scene: Scene) -> None:
    """Start containers in every mode that the adapter declares, on open and internal networks."""
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
