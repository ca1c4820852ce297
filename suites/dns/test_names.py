"""Names of containers: they resolve on user-defined networks, for attached containers only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import dns.message
import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import ATTACKER, NS1, Bridge, Family, Protocol
from harness.plugin.marks import requirement
from harness.testbench import lookup
from harness.testbench.client import Client
from harness.testbench.listener import TRANSPORTS, Transport
from harness.testbench.scene import Scene
from suites.dns import ALIAS, DMZ, LAN, LONG, SHARED
from suites.support.dns import fresh_name, held, looked_up, present, received, resolved
from suites.support.features import families, has_ipv6
from suites.support.three_containers import both_families

SHORT: Final = 12
"""Hexadecimal digits of a short id."""
OTHERS: Final = ("TXT", "MX", "SRV", "HTTPS")
"""Record types other than addresses that programs query; browsers query the last one."""


# --- resolution ------------------------------------------------------------------


@requirement("NET-4")
@both_families
@pytest.mark.parametrize(
    "name",
    ["web", ALIAS, "WEB", ALIAS.title(), LONG],
    ids=["name", "alias", "uppercase-name", "capitalized-alias", "longest-alias"],
)
def test_container_name_and_alias_resolve_to_its_address(
    dns_scene: Scene, name: str, family: Family
) -> None:
    """A container's name and aliases resolve to its address, in upper and lower case (RFC 4343).

    The container itself and its peers resolve them. One alias is a label of the longest legal
    length.
    """
    own = held(dns_scene, "web", family)
    assert own
    for asker in present(dns_scene, "db", "web", "lodger"):
        assert resolved(dns_scene, asker, name, family) == own


@requirement("NET-4")
@both_families
def test_shared_alias_resolves_to_every_holder_on_the_network(
    dns_scene: Scene, family: Family
) -> None:
    """An alias that several containers share resolves to all of them on the client's network."""
    assert resolved(dns_scene, "db", SHARED, family) == held(dns_scene, "web", family) | held(
        dns_scene, "db", family
    )
    assert resolved(dns_scene, "far", SHARED, family) == held(dns_scene, "far", family)


@requirement("NET-4", "NET-2")
@both_families
@pytest.mark.parametrize("name", ["web", ALIAS], ids=["name", "alias"])
def test_container_name_is_unknown_on_other_networks(
    dns_scene: Scene, name: str, family: Family
) -> None:
    """A container's name does not resolve on other networks, user-defined or default."""
    assert resolved(dns_scene, "db", name, family)
    for asker in ("far", "solo", "plain"):
        assert resolved(dns_scene, asker, name, family) == set()


@requirement("NET-4")
def test_default_network_has_no_container_names(dns_scene: Scene) -> None:
    """Names of containers on the default network resolve neither on it nor on other networks."""
    assert resolved(dns_scene, "solo", "mate", 4) == held(dns_scene, "mate", 4)
    for asker in present(dns_scene, "plain", "guest", "web"):
        assert resolved(dns_scene, asker, "other", 4) == set()


@requirement("NET-4", "NET-3")
@both_families
def test_name_of_container_on_two_networks_resolves_to_address_on_shared_network(
    dns_scene: Scene, family: Family
) -> None:
    """The name of a container on two networks resolves to its address on the client's network."""
    for asker, network in (("web", LAN), ("far", DMZ)):
        shared = held(dns_scene, "both", family, network)
        assert len(shared) == 1
        assert resolved(dns_scene, asker, "both", family) == shared
    assert resolved(dns_scene, "both", "web", family) == held(dns_scene, "web", family)
    assert resolved(dns_scene, "both", "distant", family) == held(dns_scene, "far", family)


@requirement("NET-4")
def test_aaaa_query_for_ipv4_container_returns_no_data(dns_scene: Scene) -> None:
    """An AAAA query for a container without IPv6 returns NOERROR without records.

    The resolver does not forward the query.
    """
    since = dns_scene.world.services.mark()
    assert resolved(dns_scene, "solo", "mate", 6) == set()
    answer = lookup.query(dns_scene["solo"], "mate", "AAAA")
    assert (lookup.rcode(answer), lookup.values(answer)) == ("NOERROR", set())
    assert looked_up(dns_scene, "solo", "mate").addresses == held(dns_scene, "mate", 4)
    assert received(dns_scene, since, "mate") == []


@requirement("DNS-5")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_query_for_other_record_types_returns_no_data(
    dns_scene: Scene, transport: Transport
) -> None:
    """A query for a peer's name returns NOERROR without records for types other than A and AAAA.

    The resolver does not forward the query.
    """
    since = dns_scene.world.services.mark()
    for kind in OTHERS:
        answer = lookup.query(dns_scene["db"], "web", kind, transport=transport)
        assert (kind, lookup.rcode(answer), lookup.values(answer)) == (kind, "NOERROR", set())
    assert received(dns_scene, since, "web") == []


@requirement("DNS-6")
@pytest.mark.parametrize(
    "asker",
    [
        ATTACKER,
        NS1,
        pytest.param("far", id="other-network", marks=requirement("NET-2")),
        pytest.param("plain", id="default-network", marks=requirement("NET-2")),
    ],
)
def test_resolver_ignores_queries_from_other_networks(dns_scene: Scene, asker: str) -> None:
    """A network's resolver neither answers nor forwards queries from clients on other networks."""
    gateways = [item.ip for item in dns_scene.runtime.network_facts(LAN).gateways]
    beyond, since = fresh_name(), dns_scene.world.services.mark()
    names = ["web", beyond] if asker in dns_scene.world_netns else ["web"]
    with contextlib.ExitStack() as stack:
        calls: list[Client] = []
        for address in (*gateways, *held(dns_scene, "web", 4), *held(dns_scene, "web", 6)):
            with contextlib.suppress(OSError):  # no route, or no listener
                call = Client(dns_scene.netns(asker), Protocol.UDP, address, port=53)
                calls.append(stack.enter_context(call))
                for name in names:
                    call.send(dns.message.make_query(name, "A").to_wire())
        assert calls
        assert resolved(dns_scene, "db", "web", 4), (
            "the resolver does not answer a later query of a peer"
        )
        assert resolved(dns_scene, "db", f"control.{beyond}", 4)
        dns_scene.settle()
        assert [value for call in calls for value in responses(call)] == []
    assert {item.name for item in received(dns_scene, since, beyond)} == {f"control.{beyond}"}


def responses(call: Client) -> list[str]:
    """Return the values in those responses of the resolver that have arrived so far."""
    values: list[str] = []
    with contextlib.suppress(OSError):  # refused
        while (received := call.receive_nowait()) is not None:
            values += lookup.values(dns.message.from_wire(received))
    return values


# --- further names, as declared -----------------------------------------------------


@requirement("NET-4")
@both_families
def test_short_container_id_resolves_as_declared(
    dns_scene: Scene, runtime: Adapter, family: Family
) -> None:
    """A container's short id, the first 12 digits, resolves exactly if the runtime declares so."""
    found = resolved(dns_scene, "db", dns_scene["web"].started.id[:SHORT], family)
    declared = "short-id" in runtime.dialect.peer_names
    assert found == (held(dns_scene, "web", family) if declared else set())


@requirement("NET-4")
def test_requested_hostname_resolves_for_peers_as_declared(scene: Scene, runtime: Adapter) -> None:
    """Peers resolve a container's requested hostname exactly if the runtime declares so."""
    own = Bridge(scene.network("town", ipv6=has_ipv6(runtime)).name)
    scene.container("called", own, hostname="box")
    scene.container("asker", own)
    declared = "hostname" in runtime.dialect.peer_names
    for family in families(runtime):
        found = resolved(scene, "asker", "box", family)
        assert found == (held(scene, "called", family) if declared else set())


@requirement("NET-4")
@both_families
def test_reverse_lookup_of_container_address_is_as_declared(
    dns_scene: Scene, runtime: Adapter, family: Family
) -> None:
    """A reverse lookup of a container's address returns its name if the runtime declares so.

    The returned name resolves to that address. Clients on other networks get no answer.
    """
    (address,) = held(dns_scene, "web", family)
    name = lookup.name_of(dns_scene.world.host, dns_scene["db"], address)
    assert bool(name) == ("reverse" in runtime.dialect.peer_names)
    if name:
        assert name.partition(".")[0] == "web"
        assert resolved(dns_scene, "db", name, family) == {address}
    assert lookup.name_of(dns_scene.world.host, dns_scene["far"], address) == ""


# --- lifetime ------------------------------------------------------------------------


def stopped(scene: Scene, name: str) -> None:
    """Stop a container."""
    scene[name].stop()


@requirement("NET-4")
@pytest.mark.parametrize("end", [Scene.remove, stopped], ids=["removed", "stopped"])
def test_container_name_is_unknown_after_its_end(
    scene: Scene, end: Callable[[Scene, str], None]
) -> None:
    """A container's name and aliases stop resolving as soon as the container is stopped or removed.

    The alias then resolves at once to the next container that gets it. An alias that another
    container shares still resolves to that container.
    """
    scene.network("town", ipv6=has_ipv6(scene.runtime))
    scene.container("asker", Bridge("town"), aliases=("common",))
    scene.container("first", Bridge("town"), aliases=("service", "common"))
    before = {family: held(scene, "first", family) for family in families(scene.runtime)}
    for family, addresses in before.items():
        own = held(scene, "asker", family)
        assert resolved(scene, "asker", "service", family) == addresses
        assert resolved(scene, "asker", "common", family) == addresses | own
    end(scene, "first")
    for family in before:
        for name in ("first", "service"):
            assert resolved(scene, "asker", name, family) == set()
        assert resolved(scene, "asker", "common", family) == held(scene, "asker", family)
    scene.container("second", Bridge("town"))
    scene.container("third", Bridge("town"), aliases=("service",))
    for family, addresses in before.items():
        after = held(scene, "third", family)
        assert after != addresses
        assert resolved(scene, "asker", "service", family) == after


@requirement("NET-4", "LIFE-7")
def test_container_name_survives_restart(scene: Scene) -> None:
    """A restarted container's name and aliases resolve to its current address."""
    scene.network("town", ipv6=has_ipv6(scene.runtime))
    scene.container("asker", Bridge("town"))
    again = scene.container("again", Bridge("town"), aliases=("service", "spare"))
    for name in ("again", "service", "spare"):
        assert resolved(scene, "asker", name, 4) == held(scene, "again", 4)
    again.stop()
    again.start()
    for family in families(scene.runtime):
        for name in ("again", "service", "spare"):
            assert resolved(scene, "asker", name, family) == held(scene, "again", family)


@requirement("NET-4", "NET-3", "LIFE-7")
def test_alias_of_connected_network_survives_restart(scene: Scene) -> None:
    """An alias that a container got by `connect` still resolves after the container restarts."""
    for network in ("town", "village"):
        scene.network(network, ipv6=has_ipv6(scene.runtime))
    scene.container("asker", Bridge("town"))
    mover = scene.container("mover", Bridge("village"))
    scene.connect("mover", "town", aliases=("townsman",))
    mover.stop()
    mover.start()
    for family in families(scene.runtime):
        for name in ("mover", "townsman"):
            assert resolved(scene, "asker", name, family) == held(scene, "mover", family, "town")


@requirement("NET-4", "NET-3")
def test_container_name_follows_connect_and_disconnect(scene: Scene) -> None:
    """A container's name and aliases resolve on a network while the container is attached to it.

    The names do not resolve after disconnect, and resolve again after the next connect.
    """
    for network in ("town", "village"):
        scene.network(network, ipv6=has_ipv6(scene.runtime))
    scene.container("asker", Bridge("town"))
    scene.container("mover", Bridge("village"), aliases=("villager",))
    for family in families(scene.runtime):
        assert resolved(scene, "asker", "mover", family) == set()
    for _ in range(2):
        scene.connect("mover", "town", aliases=("townsman", "voter"))
        for family in families(scene.runtime):
            own = held(scene, "mover", family, "town")
            for name in ("mover", "townsman", "voter"):
                assert resolved(scene, "asker", name, family) == own
            assert resolved(scene, "asker", "villager", family) == set()
            assert resolved(scene, "mover", "asker", family) == held(scene, "asker", family)
        scene.disconnect("mover", "town")
        for family in families(scene.runtime):
            for name in ("mover", "townsman", "voter"):
                assert resolved(scene, "asker", name, family) == set()
            assert resolved(scene, "mover", "asker", family) == set()
