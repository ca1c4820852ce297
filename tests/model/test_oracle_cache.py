"""Tests of the cache: the promises of a scene are computed once."""

from __future__ import annotations

from dataclasses import replace

from harness.model.dialect import Dialect
from harness.model.oracle import Promises, promised
from harness.model.plan import Bridge, ContainerSpec, Plan
from harness.model.topology import Topology
from tests.model.reference import PLAN

PLAIN, WORLD = Dialect(), Topology()


def test_promises_are_cached_for_equal_arguments() -> None:
    """The observing code and the comparing test request the same matrix."""
    promises = Promises()
    first = promises.of(PLAN, PLAIN, WORLD)
    assert first == promised(PLAN, PLAIN, WORLD)
    assert promises.of(replace(PLAN), PLAIN, WORLD) is first
    some = [*first][:9]
    few = promises.of(PLAN, PLAIN, WORLD, some)
    assert [*few] == some
    assert promises.of(PLAN, PLAIN, WORLD, tuple(some)) is few


def test_promise_cache_distinguishes_plan_dialect_topology_and_cells() -> None:
    """Any different argument gives a different matrix."""
    promises = Promises()
    fewer = replace(PLAN, containers=PLAN.containers[:1])
    other = replace(PLAIN, masquerade_to_bystanders=not PLAIN.masquerade_to_bystanders)
    far = replace(WORLD, routers=WORLD.routers - 1)
    some = [*promised(PLAN, PLAIN, WORLD)][:9]
    for given in (
        (PLAN, PLAIN, WORLD),
        (fewer, PLAIN, WORLD),
        (PLAN, other, WORLD),
        (PLAN, PLAIN, far),
    ):
        assert promises.of(*given) == promised(*given)
        assert promises.of(*given, some[:1]) == promised(*given, some[:1])


def test_promise_cache_accepts_unhashable_plan() -> None:
    """A third-party description may contain lists instead of tuples."""
    plan = Plan(containers=[ContainerSpec("a", Bridge())])  # type: ignore[arg-type] # on purpose
    promises = Promises()
    assert promises.of(plan, PLAIN, WORLD) == promised(plan, PLAIN, WORLD)
