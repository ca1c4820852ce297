"""Looking names up inside the containers of a scene, with two witnesses."""

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
"""Which records hold addresses of a family."""


def present(scene: Scene, *names: str) -> list[str]:
    """Those that are there: who joins another is, where that is claimed."""
    return [spec.name for spec in scene.plan.containers if spec.name in names]


def held(scene: Scene, name: str, family: Family, network: str = "") -> set[Address]:
    """The addresses that a container has, or those of them that are on one network."""
    gateways = scene.runtime.network_facts(network).gateways if network else ()
    within = {item.network for item in gateways}
    return {
        item.ip
        for item in scene.place(name).interfaces()
        if item.version == family
        and not item.ip.is_loopback
        and (not network or item.network in within)
    }


def resolved(scene: Scene, asker: str, name: str, family: Family) -> set[Address]:
    """What a name leads to inside `asker`, by its C library and by its resolver alike.

    `AssertionError` when the two do not agree.
    """
    library = looked_up(scene, asker, name, family)
    answer = lookup.ask(scene[asker], name, KINDS[family])
    said = {ip_address(text) for text in lookup.told(answer)}
    assert library.addresses == said, (
        f"{name} (IPv{family}) in {asker}: the C library says {library}, the resolver "
        f"{lookup.rcode(answer)} {sorted(map(str, said))}"
    )
    return said


def looked_up(scene: Scene, asker: str, name: str, family: Family | None = None) -> LookupResult:
    """What the C library inside `asker` makes of a name."""
    return lookup.look_up(scene.world.host, scene[asker], name, family)


def leads_to_itself(scene: Scene, name: str) -> None:
    """What gethostname(2) says inside leads to addresses that are there, and to no others."""
    called = lookup.hostname(scene.world.host, scene[name])
    for family in FAMILIES:
        own, found = held(scene, name, family), looked_up(scene, name, called, family)
        others = set(found.addresses - own)
        if isinstance(scene.plan.container(name).mode, Joined):  # its loopback is no less itself
            others = {address for address in others if not address.is_loopback}
        assert not others, f"{called} leads to {found}, it has {own}"
        assert bool(found.addresses) >= bool(own), f"{called} leads to {found}, it has {own}"


def with_names(runtime: Adapter, network: str) -> Bridge:
    """Where names outside are known: on a network, or, if that has no resolver, the default one."""
    return Bridge(network) if runtime.dialect.network_resolver == "reached" else Bridge()


def unheard_of() -> str:
    """A name that nobody has asked for yet; the world's name server knows an address of it.

    Its first label is no number: by itself the C library would take that for an address.
    """
    return f"n{os.urandom(6).hex()}.{SENTINEL_ZONE}"


def heard(scene: Scene, since: int, *words: str) -> list[ServiceQuery]:
    """What the world's name server has been asked since a mark about names with these words."""
    asked = scene.world.services.asked(since)
    return [item for item in asked if any(word in item.name for word in words)]
