"""The networks and containers that the DNS tests share."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import pytest

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import Bridge, ContainerSpec, Host, Joined, NetworkSpec, Plan
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.dns import ALIAS, CLOSED, DMZ, FOUR, LAN, LONG, NEIGHBOUR, SHARED, VAULT


@pytest.fixture(scope="package")
def dns_scene(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Share named containers on networks of every kind; tests must not change them."""
    with Scene(world, runtime, plan(runtime.features)) as made:
        yield made


def plan(features: Collection[str]) -> Plan:
    """Return the plan of those containers that a runtime with these features can start.

    `web` and `db` are on one network, `far` is on another, and `both` is on both of these. `solo`
    and `mate` are on a network without IPv6, `plain` and `other` on the default network. `inner`
    and `peer` are on an internal network, and `shut` is on another internal one. `guest` joins
    `plain`, `lodger` joins `web`, and `house` is in mode host.
    """
    dual = Feature.IPV6 in features
    networks: list[NetworkSpec] = []
    containers = [ContainerSpec("plain"), ContainerSpec("other")]
    if Feature.NETWORKS in features:
        networks += [NetworkSpec(LAN, ipv6=dual), NetworkSpec(DMZ, ipv6=dual), NetworkSpec(FOUR)]
        containers += [
            ContainerSpec("web", Bridge(LAN), aliases=(ALIAS, SHARED, LONG)),
            ContainerSpec("db", Bridge(LAN), aliases=(SHARED,)),
            ContainerSpec("far", Bridge(DMZ), aliases=(SHARED, "distant")),
            ContainerSpec("solo", Bridge(FOUR)),
            ContainerSpec("mate", Bridge(FOUR)),
        ]
    if {Feature.NETWORKS, Feature.CONNECT} <= set(features):
        containers.append(ContainerSpec("both", Bridge(LAN), also=(DMZ,)))
    if Feature.INTERNAL in features:
        networks += [NetworkSpec(name, ipv6=dual, internal=True) for name in (CLOSED, VAULT)]
        containers += [
            ContainerSpec("inner", Bridge(CLOSED)),
            ContainerSpec("peer", Bridge(CLOSED), aliases=(NEIGHBOUR,)),
            ContainerSpec("shut", Bridge(VAULT)),
        ]
    if Feature.HOST in features:
        containers.append(ContainerSpec("house", Host()))
    if Feature.CONTAINER in features:
        containers.append(ContainerSpec("guest", Joined("plain")))
    if {Feature.CONTAINER, Feature.NETWORKS} <= set(features):
        containers.append(ContainerSpec("lodger", Joined("web")))
    if Feature.DNS not in features:
        containers = [replace(item, aliases=()) for item in containers]
    return Plan(networks=tuple(networks), containers=tuple(containers))
