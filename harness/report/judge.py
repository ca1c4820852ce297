"""Verdicts of requirements, derived from the verdicts of tests, and counts of verdicts (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from harness.report import blame
from harness.report.schema import (
    CellCounts,
    CellResult,
    Counts,
    MatrixResult,
    Profile,
    Report,
    RequirementResult,
    Stage,
    TestResult,
    Totals,
    Verdict,
)

BASE_MODES = frozenset({"bridge", "host", "none", "container"})
"""The features that a core requirement may need."""


def profile(level: str, features: Iterable[str]) -> Profile:
    """Return the profile of a requirement with this level and these features: core or extended."""
    core = level == "MUST" and BASE_MODES.issuperset(features)
    return Profile.CORE if core else Profile.EXTENDED


def judged(
    requirements: Sequence[RequirementResult], tests: Sequence[TestResult]
) -> tuple[RequirementResult, ...]:
    """Return the requirements with their tests and their verdicts.

    A requirement has the most severe verdict of its tests, but a failed test breaks a requirement
    only if `harness.report.blame` names the requirement as a cause. A requirement of a failed test
    that is no cause is unjudged, or kept if the test's matrix shows that its cells are as promised.
    """
    votes = worst_votes(tests)
    checks = [check for test in tests for check in _checks(test)]
    found = blame.causes(checks, {item.id: item.needs for item in requirements})
    results = []
    for item in requirements:
        own = votes.get(item.id, {})
        verdict = worst(own.values())
        because: tuple[str, ...] = ()
        if verdict is Verdict.BROKEN and item.id not in found:
            failed = {test for test, vote in own.items() if vote is Verdict.BROKEN}
            others = worst(vote for test, vote in own.items() if test not in failed)
            verdict = max(others, Verdict.UNJUDGED, key=lambda vote: vote.weight)
            because = tuple(id_ for id_, explained in found.items() if explained & failed)
        results.append(replace(item, tests=tuple(own), verdict=verdict, because=because))
    return tuple(results)


def worst_votes(tests: Iterable[TestResult]) -> dict[str, dict[str, Verdict]]:
    """Return the verdict of each test about each requirement: by requirement, then by test."""
    votes: dict[str, dict[str, Verdict]] = {}

    def vote(id_: str, test: TestResult, verdict: Verdict) -> None:
        own = votes.setdefault(id_, {})
        own[test.id] = worst([own.get(test.id, verdict), verdict])

    for test in tests:
        verdict = own_verdict(test)
        wrong, held = _contradicted(test), _held(test)
        if verdict is Verdict.SKIPPED:
            continue
        for id_ in dict.fromkeys((*test.requirements, *sorted(wrong))):
            vote(id_, test, Verdict.KEPT if id_ in held else verdict)
        for id_ in test.breaks:
            vote(id_, test, Verdict.BROKEN)
    return votes


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the most severe verdict; `UNTESTED` if there is none."""
    return max(verdicts, key=lambda item: item.weight, default=Verdict.UNTESTED)


def _checks(test: TestResult) -> Iterator[blame.Check]:
    verdict, wrong, held = own_verdict(test), _contradicted(test), _held(test)
    if verdict in (Verdict.KEPT, Verdict.BROKEN):
        failed = verdict is Verdict.BROKEN
        concerned = (wrong or set(test.requirements) - held) if failed else set(test.requirements)
        yield blame.Check(test.id, frozenset(concerned), frozenset(held), failed=failed)
    if test.breaks:
        yield blame.Check(test.id, frozenset(test.breaks), frozenset(), failed=True)


def _contradicted(test: TestResult) -> set[str]:
    return {id_ for failure in test.failures for id_ in failure.contradicts}


def _held(test: TestResult) -> set[str]:
    return {id_ for failure in test.failures for id_ in failure.holds} - _contradicted(test)


def own_verdict(test: TestResult) -> Verdict:
    """Return the verdict of a test about its own requirements.

    If a test leaked but its set-up and its body passed, its own requirements are kept. If its body
    ended because the leak was found there, they are unjudged.
    """
    whens = {failure.when for failure in test.failures}
    if test.verdict is not Verdict.BROKEN or not test.breaks:
        return test.verdict
    if _contradicted(test) and _contradicted(test) <= set(test.breaks):
        own = set(test.requirements) & _contradicted(test)
        return Verdict.BROKEN if own else Verdict.UNJUDGED
    if whens & {"call", "crash"}:
        return test.verdict
    return Verdict.ERROR if "setup" in whens else Verdict.KEPT


def counts(verdicts: Iterable[Verdict]) -> Counts:
    """Return the number of occurrences of each verdict."""
    tally = Counter(verdicts)
    return Counts(total=tally.total(), **{str(verdict): tally[verdict] for verdict in Verdict})


def matrix(title: str, cells: Sequence[CellResult], stage: Stage | None) -> MatrixResult:
    """Return the matrix with this title and these cells, and with the counts of its cells."""
    counted = CellCounts(cells=len(cells), wrong=sum(not cell.kept for cell in cells))
    return MatrixResult(title=title, counts=counted, cells=tuple(cells), stage=stage)


def concluded(report: Report) -> Report:
    """Return `report` with the verdicts of requirements and all counts computed from its tests."""
    requirements = judged(report.requirements, report.tests)
    core, extended = (
        counts(item.verdict for item in requirements if item.profile is name)
        for name in (Profile.CORE, Profile.EXTENDED)
    )
    totals = Totals(
        tests=counts(test.verdict for test in report.tests),
        core=core,
        extended=extended,
        requirements=counts(item.verdict for item in requirements),
        cells=CellCounts(
            cells=sum(matrix.counts.cells for matrix in report.matrices),
            wrong=sum(matrix.counts.wrong for matrix in report.matrices),
        ),
    )
    return replace(report, requirements=requirements, totals=totals)
