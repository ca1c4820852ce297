"""Tests of the promises for containers in user mode, which have a tap in place of a bridge port."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.model.dialect import Dialect
from harness.model.oracle import promised
from harness.model.plan import (
    Bridge,
    Cell,
    ContainerSpec,
    Family,
    Host,
    Joined,
    NetworkSpec,
    Nothing,
    Plan,
    Protocol,
)
from harness.model.topology import Topology

PLAN = Plan(
    containers=(
        ContainerSpec("one", Bridge()),
        ContainerSpec("other", Bridge()),
        ContainerSpec("joiner", Joined("one")),
        ContainerSpec("guest", Host()),
        ContainerSpec("alone", Nothing()),
    )
)
PASTA = Dialect(default_network="pasta")
SLIRP = Dialect(default_network="slirp4netns")


def promise(
    dialect: Dialect,
    source: str,
    target: str,
    *,
    protocol: Protocol = Protocol.TCP,
    family: Family = 4,
) -> str:
    """Return the promise for a cell, with its requirement, as text."""
    cell = Cell(source, target, protocol, family)
    found = promised(PLAN, dialect, Topology(), [cell])[cell]
    return f"{found}, {found.requirement}"


@pytest.mark.parametrize("dialect", [PASTA, SLIRP], ids=["pasta", "slirp4netns"])
@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("one", "self", "reply, ttl 64, seen as one, UM-1"),
        ("one", "loopback", "reply, ttl 64, seen as one, UM-1"),
        ("one", "internet", "reply, seen as host, seen with ttl 61, UM-2"),
        ("one", "www.example.com", "reply, seen as host, seen with ttl 61, UM-2"),
        ("one", "ns1", "reply, seen as host, seen with ttl 64, UM-2"),
        ("one", "br0", "reply, seen as host, seen with ttl 64, UM-3"),
        ("one", "other", "wrong-peer, ttl 64, seen as one, UM-4"),
        ("one", "joiner", "reply, ttl 64, seen as one, CTR-2"),
        ("joiner", "internet", "reply, seen as host, seen with ttl 61, CTR-1"),
        ("alone", "one", "no-route, NONE-4"),
    ],
)
def test_user_mode_traffic_leaves_with_host_address(
    dialect: Dialect, source: str, target: str, words: str
) -> None:
    """Packets that leave a container by a tap have the host's address and the host's TTL.

    Packets inside the container's netns do not change.
    """
    assert promise(dialect, source, target) == words


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("one", "host", "wrong-peer, ttl 64, seen as one, UM-3"),
        ("one", "guest", "wrong-peer, ttl 64, seen as one, UM-3"),
        ("host", "one", "wrong-peer, ttl 64, seen as host, UM-4"),
        ("ns1", "one", "wrong-peer, ttl 64, seen as ns1, UM-4"),
        ("internet", "one", "wrong-peer, ttl 61, seen as internet, UM-4"),
        ("guest", "one", "wrong-peer, ttl 64, seen as host, HOST-4"),
    ],
)
def test_pasta_container_answers_for_the_host_address(source: str, target: str, words: str) -> None:
    """A pasta container itself receives its packets to the host's address, because pasta copies it.

    A packet to an address with two owners is delivered to the owner nearer to the sender.
    """
    assert promise(PASTA, source, target) == words


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("one", "host", "reply, seen as host, seen with ttl 64, UM-3"),
        ("host", "one", "dropped, UM-4"),
        ("internet", "one", "dropped, UM-4"),
    ],
)
def test_slirp4netns_internal_addresses_are_unreachable(
    source: str, target: str, words: str
) -> None:
    """The addresses inside slirp4netns cannot be reached from outside the container.

    The host replies only at its own address, and no other container reaches a tap.
    """
    assert promise(SLIRP, source, target) == words


def test_slirp4netns_decrements_ttl_of_datagrams() -> None:
    """slirp4netns decrements the TTL of datagrams by one; pasta sends them with a new TTL."""
    words = "reply, seen as host, seen with ttl {}, UM-2"
    assert promise(SLIRP, "one", "internet", protocol=Protocol.UDP) == words.format(60)
    assert promise(PASTA, "one", "internet", protocol=Protocol.UDP) == words.format(61)


def test_ipv6_address_of_another_tap_is_unreachable() -> None:
    """A container cannot reach the IPv6 address of another container's tap.

    With slirp4netns each tap has its own address. With pasta it is a copy of the host's.
    """
    assert promise(SLIRP, "one", "other", family=6) == "dropped, UM-4"
    assert promise(PASTA, "one", "other", family=6) == "wrong-peer, ttl 64, seen as one, UM-4"


NETWORKS = Plan(
    networks=(NetworkSpec("lan"), NetworkSpec("dmz")),
    containers=(
        ContainerSpec("a", Bridge("lan")),
        ContainerSpec("b", Bridge("lan")),
        ContainerSpec("c", Bridge("dmz")),
        ContainerSpec("one", Bridge()),
    ),
)
BRIDGES = replace(PASTA, bridges="pasta", isolation="none")


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a", "b", "reply, ttl 64, seen as a, BR-4"),
        ("a", "c", "reply, ttl 63, seen as host, NET-2"),
        ("a", "gateway", "reply, ttl 64, seen as a, BR-5"),
        ("a", "internet", "reply, seen as host, seen with ttl 60, UM-2"),
        ("a", "br0", "reply, seen as host, seen with ttl 63, UM-3"),
        ("a", "host", "wrong-peer, ttl 64, seen as a, UM-3"),
        ("a", "one", "wrong-peer, ttl 64, seen as a, UM-4"),
        ("one", "a", "dropped, UM-4"),
        ("host", "a", "dropped, UM-4"),
        ("internet", "a", "dropped, UM-4"),
    ],
)
def test_rootless_bridges_share_one_tap(source: str, target: str, words: str) -> None:
    """Rootless bridges behave like other bridges; their shared netns has the role of the host."""
    cell = Cell(source, target, Protocol.UDP, 4)
    found = promised(NETWORKS, BRIDGES, Topology(), [cell])[cell]
    assert f"{found}, {found.requirement}" == words


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a", "b", "reply, ttl 64, seen as a, V6-1"),
        ("a", "gateway", "reply, ttl 64, seen as a, V6-1"),
        ("a", "host", "rejected(net-unreachable) or dropped, UM-6"),
        ("a", "internet", "rejected(net-unreachable) or dropped, UM-6"),
        ("a", "www.example.com", "rejected(net-unreachable) or dropped, UM-6"),
        ("a", "ns1", "rejected(net-unreachable) or dropped, UM-6"),
        ("closed", "internet", "no-route, INT-1"),
        ("host", "a", "dropped, UM-4"),
    ],
)
def test_ipv6_from_rootless_bridge_to_outside_gets_no_reply_if_declared_unreachable(
    source: str, target: str, words: str
) -> None:
    """If the dialect declares IPv6 beyond rootless bridges unreachable, IPv6 packets get no reply.

    IPv4 packets leave by the tap.
    """
    networks = (NetworkSpec("lan", ipv6=True), NetworkSpec("shut", ipv6=True, internal=True))
    on = {"a": "lan", "b": "lan", "closed": "shut"}
    containers = tuple(ContainerSpec(name, Bridge(network)) for name, network in on.items())
    plan = Plan(networks=networks, containers=containers)
    dialect = Dialect(bridges="slirp4netns", beyond6="unreachable")
    over6, over4 = Cell(source, target, Protocol.TCP, 6), Cell("a", "internet", Protocol.TCP, 4)
    found = promised(plan, dialect, Topology(), [over6, over4])
    assert f"{found[over6]}, {found[over6].requirement}" == words
    assert f"{found[over4]}" == "reply, seen as host, seen with ttl 61"


def reason_of(plan: Plan, dialect: Dialect, cell: Cell) -> str:
    """Return the reason of the promise for a cell."""
    return promised(plan, dialect, Topology(), [cell])[cell].why


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("dialect", "source", "target", "reason"),
    [
        (PASTA, "one", "other", "one has that address too"),
        (PASTA, "one", "host", "one has that address too"),
        (PASTA, "ns1", "one", "host has that address too"),
        (PASTA, "one", "internet", "pasta sends the request again from the host"),
        (SLIRP, "one", "ns1", "slirp4netns sends the request again from the host"),
        (SLIRP, "host", "one", "no route leads to a tap"),
    ],
)
def test_reason_names_the_tap_or_the_nearer_owner(
    dialect: Dialect, source: str, target: str, reason: str, family: Family
) -> None:
    """The reason of a promise names the tap, or the nearer of two owners of an address.

    A failure message shows the reason.
    """
    assert reason_of(PLAN, dialect, Cell(source, target, Protocol.TCP, family)) == reason


def test_reason_of_a_missing_route_names_the_declaration() -> None:
    """The reason for a missing IPv6 route names the dialect's declaration, as it is no defect."""
    plan = Plan(
        networks=(NetworkSpec("lan", ipv6=True),), containers=(ContainerSpec("a", Bridge("lan")),)
    )
    dialect = Dialect(bridges="pasta", beyond6="unreachable")
    cell = Cell("a", "internet", Protocol.TCP, 6)
    assert reason_of(plan, dialect, cell) == "the runtime declares no IPv6 route beyond the bridges"


def test_container_with_a_tap_reaches_its_other_network_too() -> None:
    """A container whose default network is a tap also reaches its other networks."""
    both = ContainerSpec("both", Bridge(), also=("lan",))
    peer = ContainerSpec("peer", Bridge("lan"))
    plan = Plan(networks=(NetworkSpec("lan"),), containers=(both, peer))
    cell = Cell("peer", "both", Protocol.TCP, 4)
    assert f"{promised(plan, PASTA, Topology(), [cell])[cell]}" == "reply, ttl 64, seen as peer"


def test_user_mode_has_no_gateway_cells() -> None:
    """The matrix has no gateway cells in user mode.

    The gateway of a tap is a user-space process.
    """
    cells = promised(PLAN, PASTA, Topology())
    assert not [cell for cell in cells if cell.target == "gateway"]
