"""Verdicts on faults from the outcomes of their trials, and the coverage table (pure)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from harness.faults.fault import Fault
from harness.model.requirements import Catalogue, Requirement

CRASHES: Final = frozenset({"RuntimeBroken", "HostDied", "MemoryError", "PytestTimeout"})
"""Names of exceptions that say nothing about the runtime under test."""
FAULT_FAILED: Final = "FaultFailed"


class PhaseOutcome(NamedTuple):
    """The outcome of one phase of a test: `when` is setup, call or teardown.

    `requirements` are the requirements of the test. `breaks` are further requirements that a leak
    or a changed bystander breaks. `error` is the type of the exception and `said` the first line of
    its message; both are empty if nothing failed.
    """

    test: str
    when: str
    requirements: tuple[str, ...]
    breaks: tuple[str, ...] = ()
    error: str = ""
    said: str = ""


class Result(StrEnum):
    """Kind of a verdict on a fault."""

    CAUGHT = "caught"
    UNSUPPORTED = "unsupported"
    """The runtime does not declare the feature of the requirement."""
    UNTESTED = "untested"
    """A violated requirement has no test."""
    STRAY = "stray"
    """The fault was caught, but broke a requirement that it does not name."""
    BROKEN = "broken"
    """The fault itself failed, or ended the process of its trial."""
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True)
class FaultVerdict:
    """The verdict on one fault; `killers` are the tests that caught it, by requirement."""

    fault: Fault
    fate: Result
    killers: dict[str, str] = field(default_factory=dict)
    missed: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    said: str = ""
    acted: int = 0
    tests: int = 0
    seconds: float = 0.0


def kills(fault: Fault, outcome: PhaseOutcome) -> set[str]:
    """Return the requirements among `violates` that an outcome shows to be broken.

    A failing set-up counts only if the fault has `errors`; a crash never counts.
    """
    if not outcome.error or outcome.error in CRASHES or outcome.error == FAULT_FAILED:
        return set()
    shown = set(outcome.breaks)
    if outcome.when == "call" or (fault.errors and outcome.when == "setup"):
        shown |= set(outcome.requirements)
    return shown & set(fault.violates)


def strays(fault: Fault, outcomes: Iterable[PhaseOutcome]) -> tuple[str, ...]:
    """Return failures of requirements that a narrow fault does not name, each with its test."""
    named = {*fault.violates, *fault.also}
    found = []
    for outcome in outcomes:
        if not outcome.error:
            continue
        broken = set(outcome.breaks) - named
        if outcome.when != "teardown" and not named & set(outcome.requirements):
            broken |= set(outcome.requirements)
        if broken:
            found.append(f"{', '.join(sorted(broken))} by {outcome.test}: {outcome.said}")
    return tuple(found)


def judge(
    fault: Fault,
    outcomes: Sequence[PhaseOutcome],
    *,
    tested: Collection[str],
    claimed: Collection[str],
    unsound: Collection[str] = (),
    acted: int = 0,
    seconds: float = 0.0,
    died: str = "",
) -> FaultVerdict:
    """Return the verdict on a fault.

    `tested` are the requirements that have tests. `claimed` are the tested requirements that the
    runtime supports. `unsound` are the tests that fail without any fault. `died` is the reason why
    the trial ended early, if it did.
    """
    sound = [outcome for outcome in outcomes if outcome.test not in unsound]
    killers: dict[str, str] = {}
    for outcome in sound:
        for requirement in kills(fault, outcome):
            killers.setdefault(requirement, outcome.test)
    missed = tuple(item for item in fault.violates if item not in killers)
    astray = strays(fault, sound) if fault.narrow else ()
    broken = next((item.said for item in outcomes if item.error == FAULT_FAILED), died)
    if broken:
        fate, said = Result.BROKEN, broken
    elif untested := [item for item in missed if item not in tested]:
        fate, said = Result.UNTESTED, f"no test of {', '.join(untested)}"
    elif missed and not set(missed) & set(claimed):
        fate, said = Result.UNSUPPORTED, f"the runtime does not claim {', '.join(missed)}"
    elif missed:
        why = "the fault never acted" if not acted else "no test of it failed"
        fate, said = Result.SURVIVED, f"{', '.join(missed)}: {why}"
    elif astray:
        fate, said = Result.STRAY, astray[0]
    else:
        fate, said = Result.CAUGHT, ""
    return FaultVerdict(
        fault,
        fate,
        killers,
        missed,
        astray,
        said,
        acted,
        len({outcome.test for outcome in outcomes}),
        seconds,
    )


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """Row of the coverage table: a requirement, the number of its tests, and its faults."""

    requirement: Requirement
    tests: int
    faults: tuple[Fault, ...]
    unreplayed: tuple[str, ...]
    """Bugs of real runtimes that the requirement lists and no fault reproduces."""

    @property
    def holes(self) -> tuple[str, ...]:
        """Gaps in the coverage, in words: missing tests and missing faults."""
        found = [] if self.tests else ["no test"]
        found += [] if self.faults else ["no fault"]
        found += [f"{name} is not replayed" for name in self.unreplayed]
        return tuple(found)


def rows(
    requirements: Catalogue, tests: Mapping[str, int], faults: Iterable[Fault]
) -> list[CoverageRow]:
    """Return a row for each requirement in catalogue order; `tests` counts tests by its id."""
    every = list(faults)
    return [_row(requirement, tests.get(requirement.id, 0), every) for requirement in requirements]


def _row(requirement: Requirement, tests: int, every: list[Fault]) -> CoverageRow:
    own = tuple(item for item in every if requirement.id in item.violates)
    replayed = {name for item in every for name in item.history}
    unreplayed = tuple(
        reference.name for reference in requirement.history if reference.name not in replayed
    )
    return CoverageRow(requirement, tests, own, unreplayed)


def holes(table: Iterable[CoverageRow]) -> Iterator[str]:
    """Yield each gap in the coverage with the id of its requirement."""
    for row in table:
        for hole in row.holes:
            yield f"{row.requirement.id}: {hole}"
