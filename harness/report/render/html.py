"""The HTML page of reports: one file that loads nothing else, made from the reports alone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import jinja2
from markupsafe import Markup

from harness.model.plan import FAMILIES, PROTOCOLS
from harness.report import failure_links, schema
from harness.report.render import topology_svg
from harness.report.render.markdown import verdict
from harness.report.sanitize import address, folder, line, plain
from harness.report.schema import (
    CellResult,
    MatrixResult,
    Report,
    RequirementResult,
    TestResult,
    Verdict,
)

_SLOWEST = 12
"""Number of slowest tests whose durations are shown."""
_FIRST_FAILURES = 7
"""Number of failures that are unfolded."""


def render(reports: Sequence[Report]) -> str:
    """Return the page about one report, or about several side by side."""
    style, script = resource("page.css"), resource("page.js")
    panels = [_Panel(number, report) for number, report in enumerate(reports)]
    return (
        _templates()
        .get_template("index.html.j2")
        .render(
            panels=panels,
            first={
                "failures": next((panel.number for panel in panels if panel.failing), None),
                "matrix": next((panel.number for panel in panels if panel.heats), None),
            },
            requirements=list(_requirements(reports)),
            style=Markup(style),  # noqa: S704 # ours
            script=Markup(script),  # noqa: S704 # ours
            style_hash=digest(style),
            script_hash=digest(script),
            data=_data(reports),
            verdicts=list(reversed(Verdict)),
        )
    )


def environment_of(loader: jinja2.BaseLoader) -> jinja2.Environment:
    """Return the Jinja environment: it escapes foreign text, and an undefined name is an error."""
    return jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _templates() -> jinja2.Environment:
    environment = environment_of(jinja2.PackageLoader("harness.report.render"))
    environment.filters |= {
        "plain": plain,
        "line": line,
        "address": address,
        "folder": folder,
        "evidence": failure_links.links,
    }
    return environment


def resource(name: str) -> str:
    """Return the text of a file in the folder of templates."""
    return (files("harness.report.render") / "templates" / name).read_text(encoding="utf-8")


def digest(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows this inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(reports: Sequence[Report]) -> Markup:
    """Return the matrices of the reports as JSON for the page's script.

    The JSON is escaped so that no text in it can close the `<script>` element.
    """
    matrices = [schema.plain(report).get("matrices", []) for report in reports]
    text = json.dumps(matrices, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 # no character left has a meaning in HTML


# --- one report ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Slot:
    """A square of the heat map: a cell, and its index among the cells of the matrix."""

    number: int
    cell: CellResult

    @property
    def kind(self) -> str:
        """CSS class for the square's colour."""
        if not self.cell.kept:
            return "wrong" if self.cell.observed else "unseen"
        assert self.cell.observed
        return "reply" if self.cell.observed.outcome == "reply" else "silent"

    @property
    def description(self) -> str:
        """Description of the cell in one line."""
        cell = self.cell
        seen = str(cell.observed) if cell.observed else "never probed"
        promised = f"promised {cell.promised}" if cell.promised else "not promised"
        kept = "as promised" if cell.kept else f"wrong, {promised}"
        return line(f"{cell.cell}: {seen}; {kept}")


class _Heat:
    """The heat map of a matrix: a row for each source and a column for each target."""

    def __init__(self, matrix: MatrixResult) -> None:
        self.matrix = matrix
        cells = matrix.cells
        self.sources = list(dict.fromkeys(cell.source for cell in cells))
        self.targets = list(dict.fromkeys(cell.target for cell in cells))
        self._slots = {
            (cell.source, cell.target, cell.protocol, cell.family): _Slot(number, cell)
            for number, cell in enumerate(cells)
        }
        self.drawing = topology_svg.draw(matrix.stage) if matrix.stage else None

    def slots(self, source: str, target: str) -> Iterator[_Slot | None]:
        """Yield the squares for a source and a target: for each family, one square per protocol."""
        for family in FAMILIES:
            for protocol in PROTOCOLS:
                yield self._slots.get((source, target, protocol, family))

    def any(self, source: str, target: str) -> bool:
        """Return whether the matrix has a cell for this source and target."""
        return any(self.slots(source, target))


class _Panel:
    """The part of the page about one report."""

    first_failures = _FIRST_FAILURES

    def __init__(self, number: int, report: Report) -> None:
        self.number, self.report = number, report
        self.verdict = verdict(report)
        self.heats = [_Heat(matrix) for matrix in report.matrices]
        self.failing = [
            test for test in report.tests if test.verdict in (Verdict.BROKEN, Verdict.ERROR)
        ]
        self.anchors = {
            test.id: f"test-{number}-{place}" for place, test in enumerate(self.failing)
        }
        self.evidence = failure_links.index_path(report)
        self.tests = {test.id: test for test in report.tests}
        self.slowest = sorted(report.tests, key=lambda test: -test.seconds)[:_SLOWEST]

    @property
    def name(self) -> str:
        """The name of the runtime, and its version if known."""
        runtime = self.report.implementation
        return line(f"{runtime.name} {runtime.version or ''}").strip()

    @property
    def tone(self) -> str:
        """CSS class for the colour of the report's verdict."""
        if not self.report.complete:
            return "open"
        return {True: "good", False: "bad", None: "open"}[self.report.conforms]

    @property
    def longest(self) -> float:
        """Duration of the slowest test in seconds."""
        return max((test.seconds for test in self.slowest), default=0.0)

    def command(self, test: TestResult) -> str:
        """Return the command that runs a test again."""
        return failure_links.command(test.id, failure_links.report_conditions(self.report))


# --- several reports ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """A requirement with its result in each report; `None` for a report without the requirement."""

    requirement: RequirementResult
    results: tuple[RequirementResult | None, ...]

    @property
    def verdicts(self) -> list[str]:
        """The verdicts of the reports about the requirement, without repetitions."""
        return list(dict.fromkeys(str(item.verdict) for item in self.results if item))

    @property
    def worst(self) -> Verdict:
        """The most severe verdict of the reports about the requirement."""
        return max((item.verdict for item in self.results if item), key=lambda item: item.weight)

    @property
    def words(self) -> str:
        """The lower-case text that the page's search box matches."""
        row = self.requirement
        links = " ".join(link.name for link in (*row.sources, *row.history))
        return line(f"{row.id} {row.level} {row.section} {row.statement} {links}").lower()


def _requirements(reports: Sequence[Report]) -> Iterator[_Row]:
    known: list[dict[str, RequirementResult]] = [
        {item.id: item for item in report.requirements} for report in reports
    ]
    for id_ in dict.fromkeys(id_ for rows in known for id_ in rows):
        results = tuple(rows.get(id_) for rows in known)
        yield _Row(next(item for item in results if item), results)
