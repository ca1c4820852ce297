"""Tests of containers on several networks: the network that two containers use, and promises."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from hypothesis import given

from harness.model.dialect import Dialect
from harness.model.matrix import Matrix
from harness.model.oracle import attachments_of, promised, shared_link
from harness.model.plan import (
    Bridge,
    Cell,
    ContainerSpec,
    Family,
    Joined,
    NetworkSpec,
    Plan,
    PlanError,
    Promise,
    Protocol,
)
from harness.model.topology import PRIVATE, Topology
from harness.testbench.strategies import plans

PLAN = Plan(
    networks=(
        NetworkSpec("lan", ipv6=True),
        NetworkSpec("dmz"),
        NetworkSpec("vault", internal=True, ipv6=True),
        NetworkSpec("deaf", icc=False),
    ),
    containers=(
        ContainerSpec("front", Bridge("dmz"), also=("lan",)),
        ContainerSpec("back", Bridge("lan"), also=("vault",)),
        ContainerSpec("store", Bridge("vault")),
        ContainerSpec("shut", Bridge("vault"), also=("deaf",)),
        ContainerSpec("deaf1", Bridge("deaf")),
        ContainerSpec("joiner", Joined("back")),
    ),
)


def promises_of(*cells: Cell) -> Matrix[Promise]:
    """Compute the promises of these cells."""
    return promised(PLAN, Dialect(), Topology(), cells)


@pytest.mark.parametrize(
    ("source", "target", "family", "words"),
    [
        ("front", "back", 4, "reply, ttl 64, seen as front, BR-4"),
        ("front", "back", 6, "reply, ttl 64, seen as front, V6-1"),
        ("back", "store", 4, "reply, ttl 64, seen as back, INT-1"),
        ("store", "back", 6, "reply, ttl 64, seen as store, INT-1"),
        ("front", "store", 4, "dropped, INT-1"),
        ("store", "front", 4, "no-route, INT-1"),
        ("shut", "deaf1", 4, "dropped, ICC-1"),
        ("back", "shut", 4, "reply, ttl 64, seen as back, INT-1"),
        ("shut", "internet", 4, "reply, ttl 60, seen as host, BR-7"),
        ("shut", "internet", 6, "no-route, V6-3"),
        ("shut", "gateway", 6, "reply, ttl 64, seen as shut, INT-1"),
        ("shut", "www.example.com", 4, "reply, ttl 60, seen as host, BR-8"),
        ("back", "internet", 6, "reply, ttl 60, seen as host, V6-1"),
        ("front", "internet", 6, "reply, ttl 60, seen as host, V6-1"),
        ("deaf1", "front", 4, "dropped, NET-2"),
        ("joiner", "store", 4, "reply, ttl 64, seen as back, CTR-1"),
        ("host", "shut", 4, "reply, ttl 64, seen as host, BR-27"),
        ("host", "shut", 6, "reply, ttl 64, seen as host, V6-1"),
        ("ns1", "front", 4, "dropped, BR-9"),
    ],
)
def test_peers_use_shared_network_before_default_route(
    source: str, target: str, family: Family, words: str
) -> None:
    """Two containers use the network that they share.

    Without a shared network, the sender's default route and the networks on its path decide.
    """
    cell = Cell(source, target, Protocol.ICMP, family)
    promise = promises_of(cell)[cell]
    assert f"{promise}, {promise.requirement}" == words


def test_cell_exists_only_for_address_families_of_its_target() -> None:
    """A cell exists only for the address families of the target's networks."""
    absent, present = (Cell("host", name, Protocol.ICMP, 6) for name in ("deaf1", "shut"))
    assert list(promises_of(absent, present)) == [present]


@pytest.mark.parametrize(
    ("source", "target", "family", "links"),
    [
        ("front", "front", 4, ("network dmz", "network dmz")),
        ("front", "front", 6, ("network lan", "network lan")),
        ("deaf1", "front", 4, ("network deaf", "network dmz")),
        ("deaf1", "front", 6, ("network deaf", "network lan")),
        ("ns1", "front", 6, ("br0", "network lan")),
        ("front", "ns1", 6, ("network lan", "br0")),
    ],
)
def test_target_without_shared_network_is_probed_on_its_first_network(
    source: str, target: str, family: Family, links: tuple[str, str]
) -> None:
    """A target without a shared network is probed on its first network of the cell's family.

    A container that probes itself uses that network too.
    """
    places = attachments_of(PLAN, Dialect())
    one, other = shared_link(places[source], places[target], family)
    assert (one.link, other.link) == links


@given(plans())
def test_shared_link_returns_one_link_of_each_container(plan: Plan) -> None:
    """`shared_link` returns one link of each container.

    If the containers share a network, both links are on it.
    """
    places = attachments_of(plan, Dialect())
    for source in places.values():
        for target in places.values():
            for family in (4, 6):
                one, other = shared_link(source, target, family)
                assert one in source
                assert other in target
                shared = {item.link for item in source if family in item.families and item.link} & {
                    item.link for item in target if family in item.families
                }
                assert one.link == other.link or not shared


@given(plans())
def test_order_of_additional_networks_changes_no_promise(plan: Plan) -> None:
    """The order in which a container is connected to networks changes no promise."""
    turned = replace(
        plan, containers=tuple(replace(item, also=item.also[::-1]) for item in plan.containers)
    )
    one, other = (promised(item, Dialect(), Topology()) for item in (plan, turned))
    said = [
        {cell: (promise.outcome, promise.ttl, promise.seen_from) for cell, promise in item.items()}
        for item in (one, other)
        if all(network.icc for network in plan.networks)
    ]
    assert all(item == said[0] for item in said)


def test_unrouted_subnet_is_refused_with_list_of_routed_subnets() -> None:
    """The error for a subnet without a route lists the subnets that have routes."""
    lan = NetworkSpec("lan", subnet=IPv4Network("100.64.0.0/24"))
    said = (
        "network 'lan': the world has no route to 100.64.0.0/24; "
        f"choose one within {PRIVATE[0]}, {PRIVATE[1]}, "
    )
    with pytest.raises(PlanError, match=f"^{re.escape(said)}"):
        attachments_of(Plan((lan,), (ContainerSpec("a", Bridge("lan")),)), Dialect())
