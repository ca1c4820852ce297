"""Comparison of reports, for `netmodes diff` and for the table of `netmodes compare` (pure)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from harness.report.sanitize import line, markdown
from harness.report.schema import Report, Verdict

_MISSING: Final = "absent"


def changes(old: Report, new: Report) -> list[str]:
    """Return a line for each difference between two reports.

    Compared are runtime, version, dialect, requirements, tests and cells.
    """
    return [
        f"{kind:12} {id_}: {before.get(id_, _MISSING)}, now {after.get(id_, _MISSING)}"
        for (kind, before), (_, after) in zip(_compared(old), _compared(new), strict=True)
        for id_ in dict.fromkeys([*before, *after])
        if before.get(id_) != after.get(id_)
    ]


def _compared(report: Report) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield each kind of compared item, with the value of each item in the report by its id."""
    runtime = report.implementation
    dialect = {f"dialect {name}": value for name, value in runtime.dialect.items()}
    yield "runtime", {"name": runtime.name, "version": str(runtime.version), **dialect}
    yield "requirement", {item.id: item.verdict for item in report.requirements}
    yield "test", {test.id: test.verdict for test in report.tests}
    cells = (
        (f"{item.title}: {cell.cell}", cell) for item in report.matrices for cell in item.cells
    )
    yield "cell", {id_: Verdict.KEPT if cell.kept else Verdict.BROKEN for id_, cell in cells}


VERSION: Final = 1
"""Version of the JSON. Added fields do not change it."""
WORDS: Final = {
    Verdict.KEPT: "pass",
    Verdict.BROKEN: "fail",
    Verdict.UNSUPPORTED: "unsupported",
    Verdict.ERROR: "error",
    Verdict.UNTESTED: "untested",
    Verdict.UNJUDGED: "unjudged",
    Verdict.SKIPPED: "untested",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: a runtime under the user's name for it, and its report.

    `report` is `None` if the runtime did not run. `note` has the reason for that, or the reason why
    the report is partial.
    """

    name: str
    report: Report | None
    note: str = ""

    @property
    def title(self) -> str:
        """Name of the runtime, and its version if known."""
        version = self.report.implementation.version if self.report else None
        return f"{self.name} {version or ''}".rstrip()

    @property
    def verdicts(self) -> dict[str, str]:
        """The word of the table for each requirement, by id: `pass`, `fail` and so on."""
        rows = self.report.requirements if self.report else ()
        return {row.id: WORDS[row.verdict] for row in rows}

    @property
    def counts(self) -> dict[str, int]:
        """The number of requirements with each word."""
        found = Counter(self.verdicts.values())
        return {word: found[word] for word in WORDS.values()}

    def __str__(self) -> str:
        if self.report is None:
            return f"{self.title}: did not run: {self.note}"
        figures = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        note = f" ({self.note})" if self.note else ""
        return f"{self.title}: {figures}, in {self.report.seconds:.0f} s{note}"


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """A requirement and its verdict for each runtime; `-` if a report lacks the requirement."""

    id: str
    level: str
    statement: str
    verdicts: Mapping[str, str]


def rows(columns: Sequence[Column]) -> list[ComparisonRow]:
    """Return a row for each requirement of the reports, in the order of the catalogue."""
    reports = [column.report for column in columns if column.report]
    found = {row.id: row for report in reports for row in report.requirements}
    verdicts = {column.name: column.verdicts for column in columns}
    return [
        ComparisonRow(
            row.id,
            row.level,
            line(row.statement),
            {name: own.get(row.id, "-") for name, own in verdicts.items()},
        )
        for row in found.values()
    ]


def as_markdown(columns: Sequence[Column]) -> str:
    """Return Markdown: the counts of each runtime, then the table of tested requirements."""
    return "\n".join(_lines(columns)) + "\n"


def _lines(columns: Sequence[Column]) -> Iterator[str]:
    shown = [column for column in columns if column.report is not None]
    words = list(dict.fromkeys(WORDS.values()))
    yield f"| runtime | {' | '.join(words)} | seconds |"
    yield f"|---|{'---:|' * (len(words) + 1)}"
    for column in shown:
        assert column.report
        figures = " | ".join(map(str, column.counts.values()))
        yield f"| {markdown(column.title)} | {figures} | {column.report.seconds:.0f} |"
    for column in columns:
        if column.note:
            yield f"\n{markdown(column.title)}: {markdown(column.note)}"
    yield f"\n| | level | {' | '.join(markdown(column.name) for column in shown)} |"
    yield f"|---|---|{'---|' * len(shown)}"
    for row in rows(shown):
        if not {"-", WORDS[Verdict.UNTESTED]}.issuperset(row.verdicts.values()):
            bold = (f"**{it}**" if it in ("fail", "error") else it for it in row.verdicts.values())
            yield f"| {markdown(row.id)} | {markdown(row.level)} | {' | '.join(bold)} |"


def as_json(columns: Sequence[Column]) -> str:
    """Return the table as JSON, including untested requirements."""
    runtimes: list[dict[str, Any]] = []
    for column in columns:
        runtimes.append({"name": column.name, "note": column.note})
        if column.report is not None:
            runtimes[-1] |= {
                "version": column.report.implementation.version,
                "seconds": column.report.seconds,
                "counts": column.counts,
            }
    requirements = [asdict(row) for row in rows(columns)]
    whole = {"version": VERSION, "runtimes": runtimes, "requirements": requirements}
    return json.dumps(whole, indent=2) + "\n"
