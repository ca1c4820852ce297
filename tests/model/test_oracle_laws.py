"""Tests of laws that the oracle's promises keep for any plan, dialect and world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from harness.model import requirements
from harness.model.dialect import Dialect
from harness.model.matrix import Matrix
from harness.model.oracle import promised
from harness.model.plan import (
    BY_NAME,
    FAMILIES,
    HOST,
    LOOPBACK,
    OUTSIDERS,
    PROTOCOLS,
    SELF,
    Attached,
    Cell,
    Family,
    Host,
    Joined,
    Nothing,
    Outcome,
    Plan,
    Promise,
    Protocol,
)
from harness.model.topology import Topology
from harness.testbench.strategies import plans
from tests.model.strategies import dialects, topologies

worlds = st.tuples(plans(), dialects(), topologies())
World = tuple[Plan, Dialect, Topology]


def names(plan: Plan, mode: type) -> list[str]:
    """Return the names of the plan's containers whose mode has this type."""
    return [container.name for container in plan.containers if isinstance(container.mode, mode)]


def networks_of(plan: Plan, name: str) -> set[str]:
    """Return the networks of the container's netns."""
    return set(plan.home(name).networks)


def bridged(plan: Plan) -> list[str]:
    """Return the names of the containers whose netns is on a network."""
    return [c.name for c in plan.containers if networks_of(plan, c.name)]


def row(matrix: Matrix[Promise], source: str) -> dict[tuple[str, Protocol, Family], object]:
    """Return the promises for one source, without their requirements and reasons."""
    return {
        (cell.target, cell.protocol, cell.family): (promise.outcome, promise.ttl, promise.seen_from)
        for cell, promise in matrix.select(source=source).items()
    }


@given(worlds)
def test_every_promise_names_a_requirement_and_a_reason(world: World) -> None:
    """Every promise names a requirement of the catalogue and gives a reason."""
    catalogue = requirements.load(Path(__file__).parents[2] / "suites" / "requirements.toml")
    for cell, promise in promised(*world).items():
        assert promise.requirement in catalogue, cell
        assert promise.why, cell


@given(worlds)
def test_joined_container_has_promises_of_its_namespace_owner(world: World) -> None:
    """A joined container reaches the same targets as the owner of its netns.

    It is also reached by the same sources.
    """
    matrix = promised(*world)
    for name in names(world[0], Joined):
        home = world[0].home(name).name
        assert row(matrix, name) == row(matrix, home)
        for source in OUTSIDERS:
            there = row(matrix.select(target=name), source)
            assert list(there.values()) == list(row(matrix.select(target=home), source).values())


@given(worlds)
def test_mode_host_container_has_promises_of_the_host(world: World) -> None:
    """A container in mode host reaches the same targets as the host, with the same promises."""
    matrix = promised(*world)
    for name in names(world[0], Host):
        assert row(matrix, name) == row(matrix, HOST)


@given(worlds)
def test_reply_between_bridged_containers_is_promised_both_ways(world: World) -> None:
    """If container A gets a reply from B, then B gets a reply from A with an equal TTL.

    This holds for containers on one bridge network. A container on several networks is probed at
    one address, which a peer may not reach even if the peer's own address is reached.
    """
    matrix = promised(*world)
    inside = {name for name in bridged(world[0]) if not world[0].home(name).also}
    for cell, promise in matrix.items():
        if cell.target in inside and cell.source in inside:
            back = matrix.get(replace(cell, source=cell.target, target=cell.source))
            if promise.outcome is Outcome.REPLY:
                assert back is not None, cell
                assert (back.outcome, back.ttl) == (promise.outcome, promise.ttl), cell


@given(worlds)
def test_internet_sees_host_address_of_containers(world: World) -> None:
    """Packets from a container to the internet have the host's address as source.

    The exception is a manually attached container whose masquerading the dialect excludes.
    """
    plan, dialect, _ = world
    matrix = promised(*world)
    for name in (container.name for container in plan.containers):
        bare = isinstance(plan.home(name).mode, Attached) and not dialect.attached_masquerade
        for target in ("internet", BY_NAME):
            for cell, promise in matrix.select(source=name, target=target).items():
                assert promise.seen_from in (None, plan.home(name).name if bare else HOST), cell


@given(worlds)
def test_containers_on_isolated_networks_get_no_reply(world: World) -> None:
    """If the dialect isolates networks, a container gets no reply from one on another network."""
    plan, dialect, topology = world
    matrix = promised(plan, replace(dialect, isolation="networks"), topology)
    inside = bridged(plan)
    for cell, promise in matrix.items():
        if cell.source in inside and cell.target in inside:
            shared = networks_of(plan, cell.source) & networks_of(plan, cell.target)
            assert shared or promise.outcome is not Outcome.REPLY, cell


@given(worlds)
def test_only_the_host_reaches_containers_without_direct_routing(world: World) -> None:
    """Without direct routing, the host is the only bystander that reaches containers."""
    plan, dialect, _ = world
    assume("accept" not in (dialect.direct(4), dialect.direct(6)))
    matrix = promised(*world)
    for cell, promise in matrix.items():
        if cell.source in OUTSIDERS and cell.target in bridged(plan):
            assert (promise.outcome is Outcome.REPLY) == (cell.source == HOST), cell


@given(worlds)
def test_container_on_internal_network_reaches_only_its_network(world: World) -> None:
    """A container on internal networks gets replies only from peers, the gateway and itself."""
    plan = world[0]
    matrix = promised(*world)
    for name in bridged(plan):
        networks = networks_of(plan, name)
        if all(plan.network(network).internal for network in networks):
            peers = [other for other in bridged(plan) if networks & networks_of(plan, other)]
            for cell, promise in matrix.select(source=name).items():
                near = cell.target in (SELF, LOOPBACK, "gateway", *peers)
                assert near or promise.outcome in (Outcome.NO_ROUTE, Outcome.NO_NAME), cell


@given(worlds)
def test_mode_none_reaches_only_loopback(world: World) -> None:
    """In mode none, only the loopback can be reached.

    Every other target has no route or no name.
    """
    matrix = promised(*world)
    for name in names(world[0], Nothing):
        for cell, promise in matrix.select(source=name).items():
            there = cell.target == LOOPBACK
            assert there or promise.outcome in (Outcome.NO_ROUTE, Outcome.NO_NAME), cell


@given(worlds)
def test_oracle_has_a_cell_for_every_address_of_a_target(world: World) -> None:
    """The oracle has a cell for each family in which the target has an address.

    It has no other cells.
    """
    plan, dialect, _ = world
    matrix = promised(*world)
    for name in (container.name for container in plan.containers):
        networks = networks_of(plan, name)
        families = {family for network in networks for family in plan.network(network).families}
        if "bridge" in networks and dialect.bridge_address6:
            families = {4, 6}
        if isinstance(plan.home(name).mode, Host):
            families = {4, 6}
        for family in FAMILIES:
            for protocol in PROTOCOLS:
                for source in (*OUTSIDERS, name):
                    cell = Cell(source, name, protocol, family)
                    assert (cell in matrix) == (family in families), cell
                own = Cell(name, SELF, protocol, family)
                assert (own in matrix) == (family in families), own
                gateway = Cell(name, "gateway", protocol, family)
                assert (gateway in matrix) == (family in families and bool(networks)), gateway
                assert Cell(name, LOOPBACK, protocol, family) in matrix
                assert Cell(name, "ns1", protocol, family) in matrix


@given(worlds)
def test_additional_container_changes_no_other_promise(world: World) -> None:
    """An additional container does not change the promises for the other containers."""
    plan, dialect, topology = world
    assume(plan.containers)
    before = promised(replace(plan, containers=plan.containers[:-1]), dialect, topology)
    after = promised(plan, dialect, topology)
    assert after.restrict(before) == before


@given(plans(), dialects(), st.integers(1, 29))
def test_additional_router_decrements_internet_ttl_by_one(
    plan: Plan, dialect: Dialect, routers: int
) -> None:
    """Each additional router lowers the TTL of packets to and from the internet by one.

    No other TTL changes.
    """
    near = promised(plan, dialect, Topology(routers=routers))
    far = promised(plan, dialect, Topology(routers=routers + 1))
    assert list(near) == list(far)
    for cell, promise in near.items():
        crossing = (cell.source == "internet") != (cell.target in ("internet", BY_NAME))
        at_home = cell.source == "internet" and cell.target in (SELF, LOOPBACK)
        cost = 1 if crossing and not at_home and promise.ttl else 0
        assert (far[cell].ttl or 0) == (promise.ttl or 0) - cost, cell
        assert far[cell].outcome is promise.outcome, cell


@given(worlds)
def test_promises_are_equal_for_all_protocols(world: World) -> None:
    """The promise for a cell is the same for ICMP, UDP and TCP."""
    matrix = promised(*world)
    for cell, promise in matrix.items():
        assert promise == matrix[replace(cell, protocol=Protocol.ICMP)]


@given(worlds)
def test_promises_of_selected_cells_equal_those_of_all_cells(world: World) -> None:
    """The promises for selected cells equal those in the whole matrix.

    Cells that the plan does not have are omitted.
    """
    whole = promised(*world)
    every_fifth = list(whole)[::5]
    assert promised(*world, every_fifth) == whole.restrict(every_fifth)
    assert not promised(*world, [Cell(HOST, "gateway", Protocol.ICMP, 4)])
