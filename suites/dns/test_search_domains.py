"""The host's search domain: a peer's name is nothing to look up there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import Bridge, ContainerSpec, Family, NetworkSpec, Plan
from harness.model.topology import SENTINEL_ZONE, pick
from harness.plugin.marks import requirement
from harness.testbench import lookup
from harness.testbench.lookup import RESOLV_CONF, saying
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.dns import heard, held, looked_up, unheard_of
from suites.support.features import another, has_ipv6
from suites.support.three_containers import both_families

PEER, ALIAS, FOURTH, ASKER = "searched-for", "also-searched-for", "fourth", "asker"
NAMES: Final = (PEER, ALIAS)


@pytest.fixture(
    scope="module",
    params=[
        f"search {SENTINEL_ZONE}\n",
        f"domain {SENTINEL_ZONE}\noptions ndots:5\n",
        f"search nothing.example.com {SENTINEL_ZONE}\n",
    ],
    ids=["search", "domain and ndots", "second domain"],
)
def searching(world: World, runtime: Adapter, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Peers on networks with and without IPv6, started on a host with a search domain.

    Every name in that domain has an address; before it there may be one that has no names.
    """
    before = world.host.call(_text, RESOLV_CONF)
    dual = has_ipv6(runtime)
    plan = Plan(
        networks=(NetworkSpec("searched", ipv6=dual), NetworkSpec("without-ipv6")),
        containers=(
            ContainerSpec(PEER, Bridge("searched"), aliases=(ALIAS,)),
            ContainerSpec(ASKER, Bridge("searched")),
            ContainerSpec(FOURTH, Bridge("without-ipv6")),
            ContainerSpec("companion", Bridge("without-ipv6")),
        ),
    )
    with saying(world.host, before + request.param), Scene(world, runtime, plan) as made:
        yield made


@requirement("DNS-3")
@both_families
@pytest.mark.parametrize("name", NAMES)
def test_a_peers_name_is_not_looked_up_in_the_hosts_domain(
    searching: Scene, name: str, family: Family
) -> None:
    """It leads to the peer, and no resolver outside hears of it."""
    since = searching.world.services.mark()
    for asked in (family, None):
        found = looked_up(searching, ASKER, name, asked).addresses
        assert held(searching, PEER, family) <= found
        assert found <= held(searching, PEER, 4) | held(searching, PEER, 6)
    assert heard(searching, since, *NAMES) == []


@requirement("DNS-3")
@pytest.mark.parametrize("family", [None, 4, 6])
def test_nor_is_one_without_ipv6(searching: Scene, family: Family | None) -> None:
    """That it has no such address is no reason to look elsewhere."""
    since = searching.world.services.mark()
    found = looked_up(searching, "companion", FOURTH, family).addresses
    assert found == (set() if family == 6 else held(searching, FOURTH, 4))
    assert heard(searching, since, FOURTH) == []


@requirement("DNS-3", "LIFE-7")
def test_nor_by_who_has_been_started_again(world: World, scene: Scene) -> None:
    """Whatever it was told when it was started first."""
    # In full: of what the host says now some may be what `searching` has it say.
    resolver = pick(world.topology.resolver, 4).ip
    with saying(world.host, f"nameserver {resolver}\nsearch {SENTINEL_ZONE}\n"):
        scene.network("anew")
        for name in ("sought", "seeker"):
            scene.container(name, Bridge("anew"))
        scene["seeker"].stop()
        scene.start("seeker")
        since = world.services.mark()
        assert looked_up(scene, "seeker", "sought", 4).addresses == held(scene, "sought", 4)
        assert heard(scene, since, "sought") == []


@requirement("DNS-3", "NET-3")
def test_nor_by_who_is_connected_later(world: World, scene: Scene) -> None:
    """To the network that the peer is on, from one on which the host's domain is nothing amiss."""
    resolver = pick(world.topology.resolver, 4).ip
    with saying(world.host, f"nameserver {resolver}\nsearch {SENTINEL_ZONE}\n"):
        scene.network("anew")
        scene.containers(sought=Bridge("anew"), seeker=Bridge(another(scene)))
        scene.connect("seeker", "anew")
        since = world.services.mark()
        assert looked_up(scene, "seeker", "sought", 4).addresses == held(scene, "sought", 4)
        assert heard(scene, since, "sought") == []


@requirement("DNS-3")
def test_in_that_domain_names_are_looked_up(searching: Scene) -> None:
    """By the host, which shows that there is one, and by a container that names it in full."""
    address = pick(searching.world.topology.internet, 4).ip
    full = unheard_of()
    bare = full.removesuffix(f".{SENTINEL_ZONE}")
    since = searching.world.services.mark()
    found = searching.world.host.call(lookup.by_name, bare, 4)
    assert found == lookup.LookupResult(frozenset({address}))
    assert full in {item.name for item in heard(searching, since, bare)}
    other = unheard_of()
    assert looked_up(searching, ASKER, other, 4).addresses == {address}
    assert heard(searching, since, other)


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
