"""The host's search domain, under which a container must not query the names of its peers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import Bridge, ContainerSpec, Family, NetworkSpec, Plan
from harness.model.topology import SENTINEL_ZONE, pick
from harness.plugin.marks import requirement
from harness.testbench import lookup
from harness.testbench.lookup import RESOLV_CONF, host_file
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.dns import fresh_name, held, looked_up, received
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
    ids=["search", "domain-and-ndots", "second-search-domain"],
)
def search_scene(world: World, runtime: Adapter, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Share peers on networks with and without IPv6; the host has a search domain.

    Every name in that domain has an address. A test parameter puts an empty domain before it.
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
    with host_file(world.host, before + request.param), Scene(world, runtime, plan) as made:
        yield made


@requirement("DNS-3")
@both_families
@pytest.mark.parametrize("name", NAMES, ids=["name", "alias"])
def test_peer_name_is_not_queried_in_the_search_domain(
    search_scene: Scene, name: str, family: Family
) -> None:
    """A peer's name resolves to the peer and is never queried under the host's search domain."""
    since = search_scene.world.services.mark()
    for asked in (family, None):
        found = looked_up(search_scene, ASKER, name, asked).addresses
        assert held(search_scene, PEER, family) <= found
        assert found <= held(search_scene, PEER, 4) | held(search_scene, PEER, 6)
    assert received(search_scene, since, *NAMES) == []


@requirement("DNS-3")
@pytest.mark.parametrize("family", [None, 4, 6], ids=["any-family", "IPv4", "IPv6"])
def test_name_of_ipv4_peer_is_not_queried_in_the_search_domain(
    search_scene: Scene, family: Family | None
) -> None:
    """A peer's name that has no AAAA record is never queried under the host's search domain."""
    since = search_scene.world.services.mark()
    found = looked_up(search_scene, "companion", FOURTH, family).addresses
    assert found == (set() if family == 6 else held(search_scene, FOURTH, 4))
    assert received(search_scene, since, FOURTH) == []


@requirement("DNS-3", "LIFE-7")
def test_peer_name_is_not_queried_in_the_search_domain_after_restart(
    world: World, scene: Scene
) -> None:
    """A restarted container never queries a peer's name under the host's search domain."""
    # The whole file is replaced, because `search_scene` may have changed the present one.
    resolver = pick(world.topology.resolver, 4).ip
    with host_file(world.host, f"nameserver {resolver}\nsearch {SENTINEL_ZONE}\n"):
        scene.network("anew")
        for name in ("sought", "seeker"):
            scene.container(name, Bridge("anew"))
        scene["seeker"].stop()
        scene.start("seeker")
        since = world.services.mark()
        assert looked_up(scene, "seeker", "sought", 4).addresses == held(scene, "sought", 4)
        assert received(scene, since, "sought") == []


@requirement("DNS-3", "NET-3")
def test_peer_name_is_not_queried_in_the_search_domain_after_connect(
    world: World, scene: Scene
) -> None:
    """After connect, a container never queries a peer's name under the host's search domain."""
    resolver = pick(world.topology.resolver, 4).ip
    with host_file(world.host, f"nameserver {resolver}\nsearch {SENTINEL_ZONE}\n"):
        scene.network("anew")
        scene.containers(sought=Bridge("anew"), seeker=Bridge(another(scene)))
        scene.connect("seeker", "anew")
        since = world.services.mark()
        assert looked_up(scene, "seeker", "sought", 4).addresses == held(scene, "sought", 4)
        assert received(scene, since, "sought") == []


@requirement("DNS-3")
def test_search_domain_of_the_host_resolves_outside_names(search_scene: Scene) -> None:
    """Names in the search domain that are not a peer's resolve on the host and in a container.

    The other tests of the search domain need this control. The host queries the short name, the
    container the full one.
    """
    address = pick(search_scene.world.topology.internet, 4).ip
    full = fresh_name()
    bare = full.removesuffix(f".{SENTINEL_ZONE}")
    since = search_scene.world.services.mark()
    found = search_scene.world.host.call(lookup.by_name, bare, 4)
    assert found == lookup.LookupResult(frozenset({address}))
    assert full in {item.name for item in received(search_scene, since, bare)}
    other = fresh_name()
    assert looked_up(search_scene, ASKER, other, 4).addresses == {address}
    assert received(search_scene, since, other)


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
