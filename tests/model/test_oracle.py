"""Tests of the oracle: example promises for every rule, their reasons, and the cache."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Interface, IPv6Network
from typing import Any

import pytest

from harness.model.dialect import Dialect
from harness.model.matrix import Matrix
from harness.model.oracle import Promises, promised
from harness.model.plan import (
    Bridge,
    Cell,
    ContainerSpec,
    Family,
    Host,
    NetworkSpec,
    Outcome,
    Plan,
    PlanError,
    Promise,
    Protocol,
)
from harness.model.topology import Topology
from tests.model.reference import PLAN

PLAIN = Dialect()
THREE_ROUTERS = Topology()

NETWORKS = Plan(
    networks=(
        NetworkSpec("lan", ipv6=True),
        NetworkSpec("deaf", icc=False),
        NetworkSpec("vault", internal=True, ipv6=True),
    ),
    containers=(
        ContainerSpec("lan1", Bridge("lan")),
        ContainerSpec("lan2", Bridge("lan")),
        ContainerSpec("deaf1", Bridge("deaf")),
        ContainerSpec("deaf2", Bridge("deaf")),
        ContainerSpec("vault1", Bridge("vault")),
        ContainerSpec("vault2", Bridge("vault")),
        ContainerSpec("host1", Host()),
    ),
)


def promises_of(plan: Plan, dialect: Dialect = PLAIN) -> Matrix[Promise]:
    """Return the promises of `plan` in a world of three routers."""
    return promised(plan, dialect, THREE_ROUTERS)


def ping(cell: str) -> Cell:
    """Return the cell of a ping, given as `source → target/family`."""
    source, _, target = cell.partition(" → ")
    target, _, family = target.partition("/")
    return Cell(source, target, Protocol.ICMP, 6 if family == "6" else 4)


def ping_promise(matrix: Matrix[Promise], cell: str) -> str:
    """Return the promise for a ping, with its requirement, as text."""
    promise = matrix[ping(cell)]
    return f"{promise}, {promise.requirement}"


def rows(table: str) -> list[list[str]]:
    """Return the rows of a table in which columns are separated by at least two spaces."""
    return [re.split(r"  +", row) for row in table.strip().splitlines()]


REFERENCE = """
container01 → self/4                      reply, ttl 64, seen as container01, BR-1
container01 → loopback/4                  reply, ttl 64, seen as container01, BR-1
container01 → container01/4               reply, ttl 64, seen as container01, BR-1
container01 → container02/4               reply, ttl 64, seen as container01, BR-4
container01 → container03-host/4          reply, ttl 64, seen as container01, HOST-3
container01 → container05-container/4     reply, ttl 64, seen as container01, CTR-2
container01 → container07-attached/4      reply, ttl 64, seen as container01, ATT-3
container01 → gateway/4                   reply, ttl 64, seen as container01, BR-5
container01 → host/4                      reply, ttl 64, seen as container01, BR-5
container01 → br0/4                       reply, ttl 64, seen as container01, BR-6
container01 → ns1/4                       reply, ttl 63, seen as host, BR-6
container01 → internet/4                  reply, ttl 60, seen as host, BR-7
container01 → www.example.com/4           reply, ttl 60, seen as host, BR-8
container02 → container05-container/4     reply, ttl 64, seen as container02, CTR-2
container05-container → container02/4     reply, ttl 64, seen as container01, CTR-1
container05-container → container01/4     reply, ttl 64, seen as container01, CTR-1
container05-container → loopback/4        reply, ttl 64, seen as container01, CTR-1
container05-container → ns2/4             reply, ttl 63, seen as host, CTR-1
container03-host → container01/4          reply, ttl 64, seen as host, HOST-4
container03-host → internet/4             reply, ttl 61, seen as host, HOST-4
container03-host → br0/4                  reply, ttl 64, seen as host, HOST-4
container06-none → loopback/4             reply, ttl 64, seen as container06-none, NONE-4
container06-none → container01/4          no-route, NONE-4
container06-none → container03-host/4     no-route, NONE-4
container06-none → host/4                 no-route, NONE-4
container06-none → www.example.com/4      no-name, NONE-4
container07-attached → self/4             reply, ttl 64, seen as container07-attached, ATT-3
container07-attached → gateway/4          reply, ttl 64, seen as container07-attached, ATT-3
container07-attached → ns1/4              reply, ttl 63, seen as host, ATT-3
container07-attached → www.example.com/4  reply, ttl 60, seen as host, ATT-3
"""


@pytest.mark.parametrize(("cell", "words"), rows(REFERENCE))
def test_promises_of_reference_plan_follow_the_network_modes(cell: str, words: str) -> None:
    """The promises for the reference plan are those of the document on the four network modes."""
    assert ping_promise(promises_of(PLAN), cell) == words


OUTSIDE = """
host → self/4                       reply, ttl 64, seen as host, BYS-1
host → container01/4                reply, ttl 64, seen as host, BR-27
host → container05-container/4      reply, ttl 64, seen as host, CTR-2
host → ns1/4                        reply, ttl 64, seen as host, BYS-2
host → internet/4                   reply, ttl 61, seen as host, BYS-2
ns1 → ns2/4                         reply, ttl 64, seen as ns1, BYS-2
ns1 → host/4                        reply, ttl 64, seen as ns1, BYS-2
ns1 → internet/4                    reply, ttl 60, seen as ns1, BYS-2
ns1 → www.example.com/4             reply, ttl 60, seen as ns1, BYS-2
ns1 → container01/4                 dropped, BR-9
ns1 → container03-host/4            reply, ttl 64, seen as ns1, HOST-3
internet → self/4                   reply, ttl 64, seen as internet, BYS-1
internet → www.example.com/4        reply, ttl 64, seen as internet, BYS-1
internet → host/4                   reply, ttl 61, seen as internet, BYS-2
internet → br0/4                    reply, ttl 61, seen as internet, BYS-2
internet → ns2/4                    reply, ttl 60, seen as internet, BYS-2
internet → container02/4            dropped, BR-9
attacker → host/4                   reply, ttl 64, seen as attacker, BYS-2
attacker → br0/4                    reply, ttl 64, seen as attacker, BYS-2
attacker → ns1/4                    reply, ttl 63, seen as attacker, BYS-2
attacker → internet/4               reply, ttl 61, seen as attacker, BYS-2
attacker → container05-container/4  dropped, BR-9
"""


@pytest.mark.parametrize(("cell", "words"), rows(OUTSIDE))
def test_bystanders_reach_each_other_and_only_the_host_reaches_containers(
    cell: str, words: str
) -> None:
    """Bystanders reach each other as without containers.

    Of the bystanders only the host reaches containers.
    """
    assert ping_promise(promises_of(PLAN), cell) == words


OPTIONS = """
lan1 → lan2/6               reply, ttl 64, seen as lan1, V6-1
lan1 → gateway/6            reply, ttl 64, seen as lan1, V6-1
lan1 → ns1/6                reply, ttl 63, seen as host, V6-1
lan1 → internet/6           reply, ttl 60, seen as host, V6-1
lan1 → deaf1/4              dropped, NET-2
lan1 → vault1/6             dropped, INT-1
deaf1 → lan1/4              dropped, NET-2
deaf1 → lan1/6              no-route, V6-3
deaf1 → ns1/6               no-route, V6-3
deaf1 → www.example.com/6   no-route, V6-3
deaf1 → loopback/6          reply, ttl 64, seen as deaf1, V6-1
deaf1 → deaf2/4             dropped, ICC-1
deaf1 → deaf1/4             reply, ttl 64, seen as deaf1, BR-1
deaf1 → gateway/4           reply, ttl 64, seen as deaf1, BR-5
vault1 → vault2/4           reply, ttl 64, seen as vault1, INT-1
vault1 → gateway/6          reply, ttl 64, seen as vault1, INT-1
vault1 → self/4             reply, ttl 64, seen as vault1, BR-1
vault1 → host/4             no-route, INT-1
vault1 → br0/6              no-route, INT-1
vault1 → host1/4            no-route, INT-1
vault1 → lan1/4             no-route, INT-1
vault1 → internet/4         no-route, INT-1
vault1 → www.example.com/6  no-name, INT-2
host → vault1/4             reply, ttl 64, seen as host, BR-27
attacker → vault1/6         dropped, INT-1
attacker → lan1/6           dropped, V6-1
lan1 → host1/6              reply, ttl 64, seen as lan1, HOST-3
"""


@pytest.mark.parametrize(("cell", "words"), rows(OPTIONS))
def test_promises_follow_network_options(cell: str, words: str) -> None:
    """IPv6, inter-container communication and internal each change only their own cells."""
    assert ping_promise(promises_of(NETWORKS), cell) == words


def test_default_network_uses_resolver_of_the_host() -> None:
    """Containers on the default network use the resolver of the host.

    The dialect's choice for the resolver of user-defined networks has no effect on them.
    """
    without = promises_of(PLAN, Dialect(network_resolver="unreachable"))
    assert ping_promise(without, "container01 → www.example.com/4").startswith("reply")


def test_attached_container_has_a_resolver_only_if_declared() -> None:
    """An attached container can resolve names only if the dialect declares it.

    A container on a bridge network always can.
    """
    without = promises_of(PLAN, Dialect(none_resolver=False))
    assert ping_promise(without, "container07-attached → www.example.com/4") == "no-name, ATT-3"
    assert ping_promise(without, "container07-attached → internet/4").startswith("reply")
    assert ping_promise(without, "container01 → www.example.com/4").startswith("reply")


DECLARED = """
direct_routing=reject  ns1 → lan1/4  rejected, BR-9
direct_routing=reject  ns1 → vault1/4  dropped, INT-1
direct_routing=reject  ns1 → lan1/6  rejected, V6-1
direct_routing=accept direct_routing6=drop  ns1 → lan1/6  dropped, V6-1
direct_routing6=accept  ns1 → lan1/6  reply, ttl 63, seen as ns1, V6-1
direct_routing6=accept  ns1 → lan1/4  dropped, BR-9
direct_routing=accept  ns1 → lan1/4  reply, ttl 63, seen as ns1, BR-9
direct_routing=accept  internet → lan1/4  reply, ttl 60, seen as internet, BR-9
direct_routing=accept  ns1 → vault1/4  dropped, INT-1
network_resolver=unreachable  lan1 → www.example.com/4  no-name, BR-8
network_resolver=unreachable  lan1 → www.example.com/6  no-name, V6-1
router6=cut-off  ns1 → internet/6  dropped, BYS-2
router6=cut-off  attacker → ns2/6  dropped, BYS-2
router6=cut-off  ns1 → ns2/6  dropped, BYS-2
router6=cut-off  ns1 → internet/4  reply, ttl 60, seen as ns1, BYS-2
router6=cut-off  ns1 → host/6  reply, ttl 64, seen as ns1, BYS-2
router6=cut-off  ns1 → self/6  reply, ttl 64, seen as ns1, BYS-1
router6=cut-off  lan1 → ns1/6  reply, ttl 63, seen as host, V6-1
router6=cut-off  attacker → internet/6  reply, ttl 61, seen as attacker, BYS-2
isolation=none  lan1 → deaf1/4  reply, ttl 63, seen as host, NET-2
isolation=none  deaf1 → deaf2/4  dropped, ICC-1
isolation=none  lan1 → vault1/4  dropped, INT-1
isolation=none masquerade_to_bystanders=False  lan1 → deaf1/4  reply, ttl 63, seen as lan1, NET-2
masquerade_to_bystanders=False  lan1 → ns1/4  reply, ttl 63, seen as lan1, BR-6
masquerade_to_bystanders=False  lan1 → internet/4  reply, ttl 60, seen as host, BR-7
bridge_loopback6=False  deaf1 → loopback/6  no-route, V6-1
bridge_loopback6=False  lan1 → loopback/6  reply, ttl 64, seen as lan1, V6-1
"""


@pytest.mark.parametrize(("choices", "cell", "words"), rows(DECLARED))
def test_each_dialect_field_changes_only_its_own_promises(
    choices: str, cell: str, words: str
) -> None:
    """Each field of the dialect changes only the promises that depend on the field."""
    fields: dict[str, Any] = dict(choice.split("=") for choice in choices.split())
    fields |= {name: False for name, value in fields.items() if value == "False"}
    assert ping_promise(promises_of(NETWORKS, Dialect(**fields)), cell) == words


SHARED = "it shares container01's namespace"
THERE = "container05-container has container01's addresses"
REASONS = """
lan1 → self/4                               the packet stays in its namespace
lan1 → loopback/4                           lo replies within its own namespace
lan1 → lan2/4                               no router between
attacker → ns1/4                            one router between
lan1 → ns1/4                                one router between, masqueraded
host → internet/4                           3 routers between
lan1 → internet/4                           4 routers between, masqueraded
ns1 → internet/6                            4 routers between
deaf1 → lan1/6                              its network has no IPv6
vault1 → lan1/4                             an internal network has no default route
vault1 → www.example.com/4                  the runtime forwards no DNS query of an internal network
lan1 → vault1/4                             the host forwards no packet into an internal network
lan1 → deaf1/4                              they are on different networks
deaf1 → deaf2/4                             inter-container communication is off on this network
ns1 → lan1/4                                direct routing to unpublished containers is dropped
host1 → lan1/4                              it is the host: no router between
lan1 → host1/4                              host1 is the host: no router between
container06-none → container01/4            its namespace has no route
container06-none → www.example.com/4        a namespace with only lo reaches no resolver
container05-container → container02/4       it shares container01's namespace: no router between
ns1 → container05-container/4               direct routing to unpublished containers is dropped
"""
LESS = Dialect(
    direct_routing="reject",
    router6="cut-off",
    none_resolver=False,
    network_resolver="unreachable",
    none_loopback=False,
    bridge_loopback6=False,
)
"""Dialect that declares missing all that a dialect can declare missing."""
REASONS_OF_LESS = """
ns1 → lan1/4                              direct routing to unpublished containers is rejected
lan1 → www.example.com/4                  the runtime declares the resolver of a network unreachable
ns1 → internet/6                          the runtime declares that the host stops forwarding IPv6
deaf1 → loopback/6                        the runtime declares that lo lacks this address
container06-none → loopback/4             the runtime declares that lo lacks this address
container07-attached → www.example.com/4  the runtime declares no resolver for mode none
"""


@pytest.mark.parametrize(
    ("dialect", "cell", "why"),
    [
        *((PLAIN, *row) for row in rows(REASONS)),
        *((LESS, *row) for row in rows(REASONS_OF_LESS)),
        (PLAIN, "container02 → container05-container/4", f"{THERE}: no router between"),
        (PLAIN, "container05-container → container03-host/6", f"{SHARED}: its network has no IPv6"),
    ],
)
def test_promise_reason_names_path_isolation_or_declaration(
    dialect: Dialect, cell: str, why: str
) -> None:
    """The reason of a promise names the path, the isolation or the dialect's declaration.

    A failure message shows the reason.
    """
    promises = {**promises_of(PLAN, dialect), **promises_of(NETWORKS, dialect)}
    assert promises[ping(cell)].why == why


@pytest.mark.parametrize("name", ["host", "ns1", "internet", "attacker"])
@pytest.mark.parametrize("target", ["self", "loopback"])
def test_bystander_reaches_its_own_address(name: str, target: str) -> None:
    """A bystander reaches its own address; this promise belongs to requirement BYS-1."""
    for family in (4, 6):
        assert (
            ping_promise(promises_of(PLAN), f"{name} → {target}/{family}")
            == f"reply, ttl 64, seen as {name}, BYS-1"
        )


@pytest.mark.parametrize("target", ["internet", "www.example.com", "ns1", "br0"])
def test_attached_container_is_masqueraded_as_declared(target: str) -> None:
    """An attached container is masqueraded only if the dialect declares it.

    Its TTL and the promises for other containers stay the same.
    """
    cast, attached = "container01", "container07-attached"
    declared = promises_of(PLAN, Dialect(attached_masquerade=False))
    by_hand, own = (Cell(name, target, Protocol.ICMP, 4) for name in (attached, cast))
    sender = promises_of(PLAN)[by_hand].seen_from
    assert declared[by_hand] == replace(
        promises_of(PLAN)[by_hand], seen_from=attached, why=declared[by_hand].why
    )
    assert declared[own] == promises_of(PLAN)[own]
    assert (sender == "host") == (target != "br0")


def test_default_network_has_ipv6_if_declared() -> None:
    """If the dialect gives the default bridge an IPv6 address, its containers have IPv6."""
    six = Dialect(bridge_address6=IPv6Interface("fd00:17::1/64"))
    cell = Cell("container01", "container02", Protocol.ICMP, 6)
    assert cell not in promises_of(PLAN)
    assert promises_of(PLAN, six)[cell].outcome is Outcome.REPLY


@pytest.mark.parametrize(
    ("dialect", "family", "words"),
    [
        (Dialect(none_loopback=False), 4, "no-route, NONE-4"),
        (Dialect(none_loopback6=False), 6, "no-route, NONE-6"),
        (PLAIN, 6, "reply, ttl 64, seen as container06-none, NONE-6"),
    ],
)
def test_mode_none_loopback_answers_as_declared(
    dialect: Dialect, family: Family, words: str
) -> None:
    """In mode none, 127.0.0.1 and ::1 reply only if the dialect declares it."""
    assert (
        ping_promise(promises_of(PLAN, dialect), f"container06-none → loopback/{family}") == words
    )


def test_oracle_refuses_subnet_without_route() -> None:
    """The oracle raises an error for a subnet that no router has a route to.

    It makes no promises for such a subnet.
    """
    for network in (
        NetworkSpec("lan", subnet=IPv4Network("100.64.0.0/24")),
        NetworkSpec("lan", subnet6=IPv6Network("2001:db8:77::/64")),
    ):
        with pytest.raises(PlanError, match=r"network 'lan': the world has no route to .*within"):
            promises_of(Plan((network,), (ContainerSpec("a", Bridge("lan")),)))
    lan = NetworkSpec("lan", subnet=IPv4Network("10.9.0.0/24"), subnet6=IPv6Network("fd00:9::/64"))
    assert promises_of(Plan((lan,), (ContainerSpec("a", Bridge("lan")),)))


@pytest.mark.parametrize(("source", "target"), [("a", "host"), ("host", "a"), ("br0", "host")])
def test_oracle_refuses_cell_with_unknown_source_or_target(source: str, target: str) -> None:
    """The error for a cell with an unknown source or target names that cell."""
    with pytest.raises(PlanError, match=f"no such cell in this plan: {source} → {target} icmp/4"):
        promised(Plan(), PLAIN, THREE_ROUTERS, [Cell(source, target, Protocol.ICMP, 4)])


def test_cost_of_a_promise_is_independent_of_plan_size() -> None:
    """The promise for a cell takes the same number of function calls in a plan of any size.

    No computation visits all containers: a mesh of 1000 containers has a million cells.
    """

    def calls(containers: int, cells: list[Cell]) -> int:
        plan = Plan(containers=tuple(ContainerSpec(f"c{n}", Bridge()) for n in range(containers)))
        count = 0

        def counted(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(counted)
        try:
            promised(plan, Dialect(), Topology(), cells)
        finally:
            sys.setprofile(None)
        return count

    few = [Cell("c0", "c1", Protocol.ICMP, 4)]
    more = [*few, Cell("c1", "c2", Protocol.ICMP, 4), Cell("c2", "c0", Protocol.ICMP, 4)]
    costs = {size: calls(size, more) - calls(size, few) for size in (4, 64)}
    assert costs[4] == costs[64]


# --- the cache -------------------------------------------------------------------


def test_promises_are_cached_for_equal_arguments() -> None:
    """Equal arguments return the cached promises.

    The observing code and the comparing test request the same promises.
    """
    promises = Promises()
    first = promises.of(PLAN, PLAIN, THREE_ROUTERS)
    assert first == promised(PLAN, PLAIN, THREE_ROUTERS)
    assert promises.of(replace(PLAN), PLAIN, THREE_ROUTERS) is first
    some = [*first][:9]
    few = promises.of(PLAN, PLAIN, THREE_ROUTERS, some)
    assert [*few] == some
    assert promises.of(PLAN, PLAIN, THREE_ROUTERS, tuple(some)) is few


def test_promise_cache_distinguishes_plan_dialect_topology_and_cells() -> None:
    """If any argument differs, the promises are computed anew."""
    promises = Promises()
    fewer = replace(PLAN, containers=PLAN.containers[:1])
    other = replace(PLAIN, masquerade_to_bystanders=not PLAIN.masquerade_to_bystanders)
    far = replace(THREE_ROUTERS, routers=THREE_ROUTERS.routers - 1)
    some = [*promised(PLAN, PLAIN, THREE_ROUTERS)][:9]
    for given in (
        (PLAN, PLAIN, THREE_ROUTERS),
        (fewer, PLAIN, THREE_ROUTERS),
        (PLAN, other, THREE_ROUTERS),
        (PLAN, PLAIN, far),
    ):
        assert promises.of(*given) == promised(*given)
        assert promises.of(*given, some[:1]) == promised(*given, some[:1])


def test_promise_cache_accepts_unhashable_plan() -> None:
    """The oracle accepts a plan with lists in place of tuples, which cannot be a cache key."""
    plan = Plan(containers=[ContainerSpec("a", Bridge())])  # type: ignore[arg-type] # on purpose
    promises = Promises()
    assert promises.of(plan, PLAIN, THREE_ROUTERS) == promised(plan, PLAIN, THREE_ROUTERS)
