"""Tests of the cache: the promises of a scene are computed once."""

from __future__ import annotations

from dataclasses import replace

from harness.model.dialect import Dialect
from harness.model.oracle import Promises, promised
from harness.model.plan import Bridge, ContainerSpec, Plan
from harness.model.topology import Topology
from tests.model.reference import PLAN

PLAIN, WORLD = Dialect(), Topology()


def test_what_was_promised_is_remembered_while_it_is_the_same() -> None:
    """Whoever observes a matrix asks for it, and so does the test that compares."""
    promises = Promises()
    first = promises.of(PLAN, PLAIN, WORLD)
    assert first == promised(PLAN, PLAIN, WORLD)
    assert promises.of(replace(PLAN), PLAIN, WORLD) is first
    some = [*first][:9]
    few = promises.of(PLAN, PLAIN, WORLD, some)
    assert [*few] == some
    assert promises.of(PLAN, PLAIN, WORLD, tuple(some)) is few


def test_of_anything_else_it_is_not_what_was_promised() -> None:
    """Another plan, another dialect, another world, other cells."""
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


def test_what_cannot_be_hashed_is_promised_too() -> None:
    """A description from elsewhere may have lists where ours have tuples."""
    plan = Plan(containers=[ContainerSpec("a", Bridge())])  # type: ignore[arg-type] # on purpose
    promises = Promises()
    assert promises.of(plan, PLAIN, WORLD) == promised(plan, PLAIN, WORLD)
