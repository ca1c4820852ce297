"""Name resolution in containers, by the C library and by DNS queries to the resolver."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import Final

from harness.adapters.protocol import Adapter
from harness.model.plan import FAMILIES, Bridge, Family, Joined
from harness.model.topology import SENTINEL_ZONE, Address
from harness.testbench import lookup
from harness.testbench.lookup import LookupResult
from harness.testbench.scene import Scene
from harness.world.services import ServiceQuery

KINDS: Final[dict[int, str]] = {4: "A", 6: "AAAA"}
"""Record types for addresses of a family."""


def present(scene: Scene, *names: str) -> list[str]:
    """Return which of the containers exist: some need modes that the adapter may not declare."""
    return [spec.name for spec in scene.plan.containers if spec.name in names]


def held(scene: Scene, name: str, family: Family, network: str = "") -> set[Address]:
    """Return the addresses that a container has, on all networks or on one."""
    gateways = scene.runtime.network_facts(network).gateways if network else ()
    within = {item.network for item in gateways}
    return {
        item.ip
        for item in scene.netns(name).interfaces()
        if item.version == family
        and not item.ip.is_loopback
        and (not network or item.network in within)
    }


def resolved(scene: Scene, client: str, name: str, family: Family) -> set[Address]:
    """Return the addresses of a name in the container `client`.

    Ask the C library and query the resolver, and raise `AssertionError` if they disagree.
    """
    library = looked_up(scene, client, name, family)
    answer = lookup.query(scene[client], name, KINDS[family])
    addresses = {ip_address(text) for text in lookup.values(answer)}
    assert library.addresses == addresses, (
        f"{name} (IPv{family}) in {client}: the C library says {library}, the resolver "
        f"{lookup.rcode(answer)} {sorted(map(str, addresses))}"
    )
    return addresses


def looked_up(scene: Scene, client: str, name: str, family: Family | None = None) -> LookupResult:
    """Return the C library's result for a name in the container `client`."""
    return lookup.look_up(scene.world.host, scene[client], name, family)


def assert_hostname_is_own(scene: Scene, name: str) -> None:
    """Assert that the hostname from gethostname(2) resolves to the container's addresses only."""
    called = lookup.hostname(scene.world.host, scene[name])
    for family in FAMILIES:
        own, found = held(scene, name, family), looked_up(scene, name, called, family)
        others = set(found.addresses - own)
        if isinstance(
            scene.plan.container(name).mode, Joined
        ):  # resolving to its loopback is correct too
            others = {address for address in others if not address.is_loopback}
        assert not others, f"{called} resolves to {found}, the container has {own}"
        assert bool(found.addresses) >= bool(own), (
            f"{called} resolves to {found}, the container has {own}"
        )


def with_names(runtime: Adapter, network: str) -> Bridge:
    """Return the mode for a network on which outside names resolve.

    This is the given network if its resolver reaches the outside, otherwise the default one.
    """
    return Bridge(network) if runtime.dialect.network_resolver == "reached" else Bridge()


def fresh_name() -> str:
    """Return a new name for which the world's name server has an address.

    The name's first label is not a number, because the C library would take it for an address.
    """
    return f"n{os.urandom(6).hex()}.{SENTINEL_ZONE}"


def received(scene: Scene, since: int, *words: str) -> list[ServiceQuery]:
    """Return the queries to the world's name server since a mark, for names that contain a word."""
    asked = scene.world.services.queries(since)
    return [item for item in asked if any(word in item.name for word in words)]
