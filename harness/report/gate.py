"""The gate: compare a report with an expectation file, strictly in both directions (pure).

Every failure must be listed, and every listed failure must still occur, unless the entry says
`chance`. So the expectation file is at any time the complete list of a runtime's deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from harness.report.expectations import BadExpectations, Deviation, DeviationKind
from harness.report.judge import judged, own_verdict
from harness.report.sanitize import line
from harness.report.schema import (
    CellResult,
    Excused,
    GateResult,
    MatrixResult,
    Report,
    RequirementResult,
    TestResult,
    Verdict,
)

FAILING = frozenset({Verdict.BROKEN, Verdict.ERROR})
_SHOWN = 3

Gone = Callable[[str], bool]
"""Whether a test, by its node id, no longer exists."""


def cell_id(matrix: MatrixResult, cell: CellResult) -> str:
    """Return the name of a cell in expectation files."""
    return f"{matrix.title}: {cell.cell}"


class _Comparison:
    """A report and the deviations that concern its runtime and version."""

    def __init__(self, report: Report, deviations: Sequence[Deviation], gone: Gone) -> None:
        self.report, self.gone = report, gone
        self.tests = {test.id: test for test in report.tests}
        self.requirements = {item.id: item for item in report.requirements}
        self.cells = {
            cell_id(matrix, cell): cell for matrix in report.matrices for cell in matrix.cells
        }
        self.wrong: dict[str, list[str]] = {}
        for id_, cell in self.cells.items():
            if not cell.kept:
                self.wrong.setdefault(cell.test, []).append(id_)
        runtime = report.implementation
        self.listed: dict[tuple[DeviationKind, str], Deviation] = {}
        self.sayings: dict[tuple[str, Verdict], Deviation] = {}
        for item in deviations:
            if item.concerns(runtime.name, runtime.version):
                self._list(item)
        self.excused = {test.id: by for test in self.failing() if (by := self._saying_of(test))}
        rest = [test for test in report.tests if test.id not in self.excused]
        self.without = {item.id: item.verdict for item in judged(report.requirements, rest)}
        """Verdicts of the requirements without the excused tests."""

    def _list(self, item: Deviation) -> None:
        """Register a deviation; raise if it is listed twice.

        A message pattern may be listed once with each verdict.
        """
        if item.kind is DeviationKind.SAYING:
            known = self.sayings.setdefault((item.id, item.verdict), item)
        else:
            known = self.listed.setdefault((item.kind, item.id), item)
        if known is not item:
            raise BadExpectations(f"{item} is listed twice for {_about(self.report)}")

    @property
    def entries(self) -> tuple[Deviation, ...]:
        """All deviations that concern this run."""
        return (*self.listed.values(), *self.sayings.values())

    @property
    def whole(self) -> bool:
        """Whether every existing test has run, so that a missing cell does not exist.

        An excused test may have ended before it observed its cells.
        """
        report = self.report
        asked_for_all = report.complete and not report.selection.narrowed and not report.shard
        return asked_for_all and not self.excused

    def failing(self) -> Iterator[TestResult]:
        return (test for test in self.report.tests if test.verdict in FAILING)

    def explained(self, test: TestResult) -> bool:
        """Return whether the listed deviations explain the failure of a test."""
        if test.id in self.excused:
            return True
        own = self.listed.get((DeviationKind.TEST, test.id))
        if own:
            return own.verdict is test.verdict
        broken = broken_by(test)
        if broken and all(self._listed_as_failing(id_) for id_ in broken):
            return True
        wrong = self.wrong.get(test.id, ())
        return (
            bool(wrong)
            and not test.breaks
            and test.verdict is Verdict.BROKEN
            and all((DeviationKind.CELL, id_) in self.listed for id_ in wrong)
        )

    def _listed_as_failing(self, id_: str) -> bool:
        found = self.listed.get((DeviationKind.REQUIREMENT, id_))
        return found is not None and found.verdict is self.without[id_]

    def _saying_of(self, test: TestResult) -> Deviation | None:
        """Return the message pattern that explains all failures of a test.

        A test that is listed itself has none.
        """
        own = self.listed.get((DeviationKind.TEST, test.id))
        if (own and own.verdict is test.verdict) or test.id in self.wrong:
            return None
        for item in self.sayings.values():
            if item.verdict is test.verdict and _matches_every_failure(test, item):
                return item
        return None

    def unsupported(self) -> Iterator[RequirementResult]:
        """Return requirements that are unsupported and not listed so."""
        for item in self.report.requirements:
            listed = self.listed.get((DeviationKind.REQUIREMENT, item.id))
            known = listed is not None and listed.verdict is Verdict.UNSUPPORTED
            if item.verdict is Verdict.UNSUPPORTED and not known:
                yield item

    def stale(self, item: Deviation) -> tuple[bool, str]:
        """Return whether a deviation is fixed, or the reason why its item does not exist."""
        match item.kind:
            case DeviationKind.TEST:
                return self._stale_test(item)
            case DeviationKind.CELL:
                cell = self.cells.get(item.id)
                if cell is None:
                    return False, "there is no such cell" if self.whole else ""
                return cell.kept, ""
            case DeviationKind.REQUIREMENT:
                return self._stale_requirement(item)
            case DeviationKind.SAYING:
                return False, ""

    def _stale_test(self, item: Deviation) -> tuple[bool, str]:
        test = self.tests.get(item.id)
        if test is None:
            return False, "there is no such test" if self.gone(item.id) else ""
        if test.verdict in (Verdict.UNSUPPORTED, Verdict.SKIPPED):
            return False, f"the test does not run: {test.verdict}"
        return test.verdict is Verdict.KEPT and not item.chance, ""

    def _stale_requirement(self, item: Deviation) -> tuple[bool, str]:
        found = self.requirements.get(item.id)
        if found is None:
            return False, "there is no such requirement"
        if not self.excused.keys().isdisjoint(found.tests):
            return False, ""
        if item.verdict is Verdict.UNSUPPORTED:
            return found.verdict in {Verdict.KEPT, *FAILING}, ""
        if found.verdict is Verdict.UNSUPPORTED:
            return False, f"it is unsupported, not {item.verdict}"
        return found.verdict is Verdict.KEPT and self.whole, ""


def _matches_every_failure(test: TestResult, item: Deviation) -> bool:
    return bool(test.failures) and all(
        failure.said and all(map(item.says, failure.said)) for failure in test.failures
    )


def broken_by(test: TestResult) -> tuple[str, ...]:
    """Return the requirements that a failing test breaks."""
    own = test.requirements if own_verdict(test) in FAILING else ()
    return tuple(dict.fromkeys((*own, *test.breaks)))


def compare(
    report: Report, deviations: Sequence[Deviation], *, file: str, gone: Gone
) -> GateResult:
    """Compare the report with the listed deviations.

    Raises `BadExpectations` if the list contradicts itself, or depends on an unknown version.
    """
    both = _Comparison(report, deviations, gone)
    new: list[str] = []
    known: list[str] = []
    for test in both.failing():
        (known if both.explained(test) else new).append(_failing_words(test))
    fixed, lost = [], []
    for item in both.entries:
        mended, reason = both.stale(item)
        if mended:
            fixed.append(line(str(item)))
        elif reason:
            lost.append(line(f"{item}: {reason}"))
    missing = tuple(item.id for item in both.unsupported())
    excused = tuple(_excused(both))
    too_many = any(item.too_many for item in excused)
    return GateResult(
        file=line(file),
        entries=len(both.entries),
        ok=report.complete and not (new or fixed or lost or missing or too_many),
        new=tuple(new),
        unsupported=missing,
        fixed=tuple(fixed),
        gone=tuple(lost),
        known=tuple(known),
        excused=excused,
    )


def _excused(both: _Comparison) -> Iterator[Excused]:
    for item in both.sayings.values():
        tests = tuple(test for test, by in both.excused.items() if by is item)
        if tests:
            yield Excused(
                saying=line(item.id),
                verdict=item.verdict,
                reason=line(item.reason),
                link=item.link,
                at_most=item.at_most,
                count=len(tests),
                tests=tests,
            )


def _failing_words(test: TestResult) -> str:
    ids = ", ".join(broken_by(test))
    return f"{test.id} ({test.verdict}{': ' if ids else ''}{ids})"


def updated(
    report: Report, deviations: Sequence[Deviation], *, gone: Gone
) -> tuple[Deviation, ...]:
    """Return the deviations of this report, as `--write-expect` writes them.

    Reasons, links and version ranges stay. Fixed and missing items go. Deviations of other runtimes
    and versions, and those not observed in this run, stay as they are. Message patterns stay as
    well: people decide how many tests of a run they may excuse.
    """
    both = _Comparison(report, deviations, gone)
    sayings = [item for item in deviations if item.kind is DeviationKind.SAYING]
    stale = {item for item in both.entries if any(both.stale(item))}
    others = [item for item in deviations if item.kind is not DeviationKind.SAYING]
    kept: dict[tuple[str, str, DeviationKind, str], Deviation] = {
        (item.runtime, item.versions, item.kind, item.id): item for item in others
    }
    for item in stale:
        del kept[item.runtime, item.versions, item.kind, item.id]
    runtime = report.implementation.name

    def put(kind: DeviationKind, id_: str, verdict: Verdict) -> None:
        known = both.listed.get((kind, id_)) or Deviation(runtime=runtime, kind=kind, id=id_)
        kept[runtime, known.versions, kind, id_] = replace(known, verdict=verdict)

    for test in both.failing():
        if not both.explained(test):
            put(DeviationKind.TEST, test.id, test.verdict)
    for row in both.unsupported():
        put(DeviationKind.REQUIREMENT, row.id, Verdict.UNSUPPORTED)
    return (*kept.values(), *sayings)


def summary_lines(result: GateResult, report: Report) -> list[str]:
    """Return the result in six lines, and another one per further message pattern."""
    verdict = "as expected" if result.ok else "NOT AS EXPECTED"
    if not report.complete:
        verdict += ", the run is partial"
    return [
        f"gate: {_about(report)} is {verdict} by {result.file}, {result.entries} known deviations",
        _items_line("new failures", result.new, "look into them, or list them"),
        _items_line("not supported", result.unsupported, "declare the feature, or list them"),
        _items_line("fixed", result.fixed, "remove these entries"),
        _items_line("gone", result.gone, "remove these entries"),
        *([_excused_line(item) for item in result.excused] or [_empty_line("excused")]),
    ]


def _excused_line(item: Excused) -> str:
    bound = "MORE THAN" if item.too_many else "at most"
    why = f'{item.verdict}, {bound} {item.at_most} by the saying "{item.saying}": {item.reason}'
    return _items_line("excused", item.tests, why)


def _empty_line(title: str) -> str:
    return f"  {title:14}  none"


def _items_line(title: str, names: Sequence[str], advice: str) -> str:
    if not names:
        return _empty_line(title)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"  {title:14}{len(names):>6}: {', '.join(names[:_SHOWN])}{more} ({advice})"


def _about(report: Report) -> str:
    runtime = report.implementation
    return line(f"{runtime.name} {runtime.version or '(version unknown)'}")
