"""Tests of plans, whose contradictions are refused, and of promises and observations."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.plan import (
    RESERVED,
    Attached,
    Bridge,
    Cell,
    ContainerSpec,
    Host,
    Joined,
    Mode,
    NetworkSpec,
    Nothing,
    Observation,
    Outcome,
    Plan,
    PlanError,
    Promise,
    Protocol,
    cells,
)
from harness.testbench.strategies import plans
from tests.model.strategies import kept, observations, promises

# --- plans -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("networks", "containers", "complaint"),
    [
        (["lan", "lan"], [], "network name 'lan' is taken"),
        (["bridge"], [], "network name 'bridge' is taken"),
        (["-lan"], [], "network name '-lan' is malformed"),
        ([], [("a", Bridge()), ("a", Bridge())], "container name 'a' is taken"),
        ([], [("a b", Bridge())], "container name 'a b' is malformed"),
        ([], [("", Bridge())], "container name '' is malformed"),
        ([], [("a", Bridge("lan"))], "container 'a' is on unknown network 'lan'"),
        ([], [("a", Attached("lan"))], "container 'a' is on unknown network 'lan'"),
        ([], [("a", Joined("b")), ("b", Bridge())], "container 'a' joins unknown container 'b'"),
        ([], [("a", Joined("a"))], "container 'a' joins unknown container 'a'"),
    ],
)
def test_contradictory_plan_is_refused_with_name_of_entry(
    networks: list[str], containers: list[tuple[str, Mode]], complaint: str
) -> None:
    """The error for a contradictory plan names the entry and the reason."""
    with pytest.raises(PlanError, match=complaint):
        Plan(
            tuple(NetworkSpec(name) for name in networks),
            tuple(ContainerSpec(name, mode) for name, mode in containers),
        )


@pytest.mark.parametrize(
    ("container", "complaint"),
    [
        (ContainerSpec("a", Bridge(), also=("lan", "dmz")), "'a' is on unknown network 'dmz'"),
        (ContainerSpec("a", Bridge("lan"), also=("lan",)), "'a' is on network 'lan' twice"),
        (ContainerSpec("a", Host(), also=("lan",)), "'a' is in mode host: it cannot be on lan too"),
    ],
)
def test_invalid_additional_networks_of_a_container_are_refused(
    container: ContainerSpec, complaint: str
) -> None:
    """Additional networks of a container have to be known and distinct.

    The container needs its own netns.
    """
    with pytest.raises(PlanError, match=complaint):
        Plan((NetworkSpec("lan"),), (container,))


def test_networks_of_container_begin_with_network_of_its_mode() -> None:
    """The first network of a container is that of its mode.

    A container in mode none has no network.
    """
    assert ContainerSpec("a", Bridge("lan"), also=("dmz",)).networks == ("lan", "dmz")
    assert ContainerSpec("a", Attached()).networks == ("bridge",)
    assert ContainerSpec("a", Nothing()).networks == ()


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_container_name_is_refused(name: str) -> None:
    """A container cannot have a name that cells use for another source or target."""
    with pytest.raises(PlanError, match="is reserved for a cell"):
        Plan(containers=(ContainerSpec(name),))


def test_home_of_a_joined_container_is_the_end_of_the_chain() -> None:
    """The home of a joined container is the container at the end of the chain of joins.

    That container owns the netns.
    """
    plan = Plan(
        containers=(
            ContainerSpec("a"),
            ContainerSpec("b", Joined("a")),
            ContainerSpec("c", Joined("b")),
        )
    )
    assert plan.home("c") == plan.home("b") == plan.home("a") == plan.container("a")


def test_plan_has_the_default_network_even_if_no_entry_declares_one() -> None:
    """A plan always has the default network.

    Any other network needs an entry.
    """
    plan = Plan((NetworkSpec("lan"),))
    assert plan.network("bridge") == NetworkSpec("bridge")
    assert plan.network("lan") == plan.networks[0]
    with pytest.raises(KeyError):
        plan.network("dmz")
    with pytest.raises(KeyError):
        plan.container("a")


def test_network_spec_has_ipv6_with_flag_or_subnet6() -> None:
    """A network always has IPv4.

    It has IPv6 if `ipv6` or `subnet6` is set.
    """
    assert NetworkSpec("lan").families == (4,)
    assert NetworkSpec("lan", ipv6=True).families == (4, 6)
    assert NetworkSpec("lan", subnet6=IPv6Network("fd00:9::/64")).families == (4, 6)


@given(plans())
def test_plan_built_entry_by_entry_equals_plan_built_at_once(plan: Plan) -> None:
    """A plan built entry by entry equals a plan built at once, and has the same hash."""
    grown = Plan()
    for network in plan.networks:
        grown = grown.with_network(network)
    for container in plan.containers:
        grown = grown.with_container(container)
    assert grown == plan
    assert hash(grown) == hash(plan)


@given(plans(features={"bridge", "container"}))
def test_generated_plan_uses_only_declared_features(plan: Plan) -> None:
    """A plan generated for the features `bridge` and `container` has only the default network."""
    assert not plan.networks
    assert all(isinstance(container.mode, Bridge | Joined) for container in plan.containers)


@pytest.mark.parametrize(
    ("mode", "spelling"),
    [
        (Bridge(), "bridge"),
        (Bridge("lan"), "lan"),
        (Host(), "host"),
        (Nothing(), "none"),
        (Joined("a"), "container:a"),
        (Attached(), "none+veth"),
    ],
)
def test_network_mode_prints_as_on_command_line(mode: Mode, spelling: str) -> None:
    """A network mode is printed as it is written after `--net`."""
    assert str(mode) == spelling


# --- cells -------------------------------------------------------------------


def test_cells_are_all_combinations_in_the_order_of_arguments() -> None:
    """`cells` returns each combination of its arguments once, in the order of the arguments."""
    found = list(cells(("a", "b"), ("x",), (Protocol.ICMP, Protocol.TCP), (4, 6)))
    assert [str(cell) for cell in found] == [
        "a → x icmp/4",
        "a → x icmp/6",
        "a → x tcp/4",
        "a → x tcp/6",
        "b → x icmp/4",
        "b → x icmp/6",
        "b → x tcp/4",
        "b → x tcp/6",
    ]
    assert found[0] == Cell("a", "x", Protocol.ICMP, 4)


# --- promises ----------------------------------------------------------------


@given(st.data(), promises())
def test_promise_admits_observation_that_keeps_all_fields(
    data: st.DataObject, promise: Promise
) -> None:
    """A promise admits an observation that keeps all fields, whatever the round-trip time."""
    assert promise.admits(data.draw(kept(promise)))


@given(st.data(), promises(), st.sampled_from(list(Outcome)))
def test_promise_admits_no_other_outcome(
    data: st.DataObject, promise: Promise, outcome: Outcome
) -> None:
    """A promise admits no other outcome.

    The exception is a rate-limited rejection.
    """
    seen = replace(data.draw(kept(promise)), outcome=outcome)
    allowed = {promise.outcome} | ({Outcome.DROPPED} if promise.limited else set())
    if promise.codes and seen.code not in promise.codes:
        allowed -= {promise.outcome}
    assert promise.admits(seen) == (outcome in allowed)


@given(st.data(), promises())
def test_promise_with_fewer_fields_admits_full_observation(
    data: st.DataObject, promise: Promise
) -> None:
    """A promise with fewer fields admits all observations that the full promise admits."""
    seen = data.draw(kept(promise))
    assert replace(promise, codes=frozenset()).admits(seen)
    assert replace(promise, ttl=None).admits(seen)
    assert replace(promise, seen_from=None).admits(seen)


ARRIVED: dict[str, Any] = {"seen_ttl": 63, "seen_from": "a"}
LIMITED = Promise(Outcome.REJECTED, codes=frozenset({"rst", "net-unreachable"}), limited=True)


@pytest.mark.parametrize(
    ("promise", "kept", "changes"),
    [
        (
            Promise(Outcome.REPLY, ttl=64, seen_from="a"),
            Observation(Outcome.REPLY, ttl=64, seen_ttl=64, seen_from="a"),
            [{"ttl": 63}, {"seen_ttl": 63}, {"ttl": None, "seen_ttl": None}, {"seen_from": None}],
        ),
        (
            Promise(Outcome.WRONG_PEER, ttl=64, seen_from="a"),
            Observation(Outcome.WRONG_PEER, ttl=64, seen_ttl=64, seen_from="a"),
            [{"outcome": Outcome.REPLY}, {"seen_from": "host"}, {"seen_from": None}, {"ttl": 63}],
        ),
        (
            Promise(Outcome.REPLY, seen_ttl=61),
            Observation(Outcome.REPLY, ttl=255, seen_ttl=61),
            [{"seen_ttl": 60}, {"seen_ttl": None}],
        ),
        (
            LIMITED,
            Observation(Outcome.REJECTED, code="rst"),
            [{"code": "admin-prohibited"}, {"outcome": Outcome.REPLY}, ARRIVED],
        ),
        (LIMITED, Observation(Outcome.DROPPED), [ARRIVED]),
        (Promise(Outcome.DROPPED), Observation(Outcome.DROPPED), [ARRIVED]),
        (Promise(Outcome.NO_ROUTE), Observation(Outcome.NO_ROUTE), [ARRIVED]),
        (
            replace(LIMITED, limited=False),
            Observation(Outcome.REJECTED, code="rst"),
            [{"outcome": Outcome.DROPPED, "code": ""}],
        ),
    ],
)
def test_promise_refuses_observation_with_one_different_field(
    promise: Promise, kept: Observation, changes: list[dict[str, Any]]
) -> None:
    """A promise does not admit an observation in which one field differs.

    If no reply is promised, the request must not arrive either.
    """
    assert promise.admits(kept)
    for change in changes:
        assert not promise.admits(replace(kept, **change)), change


@given(observations())
def test_observation_equality_ignores_rtt_and_detail(seen: Observation) -> None:
    """Observations are equal if they differ only in round-trip time and detail."""
    assert replace(seen, rtt=0.25, detail="somewhat later") == seen


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (Observation(Outcome.DROPPED), "dropped"),
        (Observation(Outcome.REJECTED, code="rst"), "rejected(rst)"),
        (
            Observation(Outcome.REPLY, ttl=64, seen_ttl=64, seen_from="a"),
            "reply, ttl 64, seen as a",
        ),
        (Observation(Outcome.REPLY, ttl=64, seen_ttl=63), "reply, ttl 64, seen with ttl 63"),
        (Promise(Outcome.REPLY, ttl=60, seen_from="host"), "reply, ttl 60, seen as host"),
        (Promise(Outcome.REJECTED, codes=frozenset({"b", "a"})), "rejected(a|b)"),
        (Promise(Outcome.REJECTED, limited=True), "rejected or dropped"),
    ],
)
def test_promise_and_observation_print_in_the_same_words(
    said: Observation | Promise, text: str
) -> None:
    """A promise and its observation are printed in the same words.

    The text has all fields that are compared.
    """
    assert str(said) == text
