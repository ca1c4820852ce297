"""Build the report of a run from pytest's reports and the records of the worker processes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest

from harness import __version__
from harness.model.plan import (
    BR0,
    BY_NAME,
    GATEWAY,
    HOST,
    INTERNET,
    LOOPBACK,
    NS1,
    NS2,
    OUTSIDERS,
    PROTOCOLS,
    SELF,
    Cell,
)
from harness.model.requirements import Catalogue, Reference
from harness.report.judge import concluded, matrix, profile
from harness.report.recorder import (
    BREAKS,
    CONTRADICTED,
    HELD,
    NODE_ID,
    PROPERTY,
    RUNTIME_OUTPUT,
    UNSUPPORTED,
    Recorder,
    Seen,
    judge,
)
from harness.report.sanitize import address, folder, line, plain
from harness.report.schema import (
    CellResult,
    Failure,
    Implementation,
    MatrixResult,
    Report,
    ReportLink,
    RequirementResult,
    Section,
    Stage,
    TestResult,
    Totals,
    Verdict,
)

EVIDENCE = "evidence"
"""The user property of a test's report that names its evidence folder."""
FILES = "netmodes_evidence"
"""The attribute of a test's report that names the files in that folder."""
_LONGEST = 20_000
"""Maximal length of a text in the report, in characters; a longer text loses its middle."""


class Collected:
    """The test results of a run; `node_ids` translates pytest's node ids to those of reports."""

    def __init__(self, node_ids: Callable[[str, str], str]) -> None:
        self._node_ids = node_ids
        self._tests: dict[str, TestResult] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Add pytest's report of one phase of a test: set-up, call or tear-down."""
        # The worker knows the id: on another machine the files may be elsewhere.
        id_ = getattr(report, NODE_ID, None) or self._node_ids(report.nodeid, report.location[0])
        before = self._tests.get(id_) or TestResult(id=line(id_), verdict=Verdict.UNTESTED)
        own, breaks = _named(report, PROPERTY), _named(report, BREAKS)
        evidence = folder(found[-1]) if (found := _named(report, EVIDENCE)) else None
        verdict = Verdict.BROKEN if breaks else judge(report)
        reason = ""
        if report.skipped and verdict is None and not hasattr(report, "wasxfail"):
            verdict = Verdict.SKIPPED
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = line(report.longrepr[2].removeprefix("Skipped: ").removeprefix(UNSUPPORTED))
        if hasattr(report, "wasxfail") and report.skipped:
            verdict, reason = Verdict.SKIPPED, line(f"expected to fail: {report.wasxfail}")
        failures = (_failure(report, evidence),) if report.failed else ()
        self._tests[id_] = replace(
            before,
            verdict=max(before.verdict, verdict or before.verdict, key=lambda item: item.weight),
            seconds=round(before.seconds + report.duration, 3),
            requirements=tuple(dict.fromkeys((*before.requirements, *own))),
            breaks=tuple(dict.fromkeys((*before.breaks, *breaks))),
            reason=before.reason or reason,
            failures=(*before.failures, *failures),
        )

    def tests(self) -> tuple[TestResult, ...]:
        """Return the results of all tests that ended, sorted by node id."""
        return tuple(
            self._tests[id_]
            for id_ in sorted(self._tests)
            if self._tests[id_].verdict is not Verdict.UNTESTED
        )


def _named(report: pytest.TestReport, property_: str) -> list[str]:
    """Return the values of the user properties with this name."""
    return [line(str(value)) for name, value in report.user_properties if name == property_]


def _failure(report: pytest.TestReport, evidence: str | None) -> Failure:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = shortened(plain(report.longreprtext))
    message = crash.message if crash is not None else report.longreprtext
    known = report.when in ("setup", "call", "teardown")
    return Failure(
        when=report.when if known and report.when else "crash",
        message=shortened(_without_preface(plain(message).strip())),
        text=text,
        said=tuple(shortened(plain(words)) for words in getattr(report, RUNTIME_OUTPUT, ())),
        contradicts=tuple(sorted(_named(report, CONTRADICTED))),
        holds=tuple(sorted(_named(report, HELD))),
        sections=tuple(
            Section(title=line(title), text=shortened(plain(content)))
            for title, content in report.sections
            if content
        ),
        evidence=evidence,
        files=tuple(map(line, getattr(report, FILES, ()))) if evidence else (),
    )


def _without_preface(message: str) -> str:
    """Return the message of an assertion without "AssertionError: assert"."""
    return message.removeprefix("AssertionError: ").removeprefix("assert ")


def shortened(text: str) -> str:
    """Return `text`, or its beginning and end if it is very long."""
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


# --- conversion to the classes of the report ------------------------------


def rows(catalogue: Catalogue) -> tuple[RequirementResult, ...]:
    """Return the requirements of the catalogue as rows of the report, still without verdicts."""
    return tuple(
        RequirementResult(
            id=item.id,
            section=item.section,
            level=item.level,
            profile=profile(item.level, item.features),
            statement=item.statement,
            sources=_links(item.sources),
            history=_links(item.history),
            features=tuple(sorted(item.features)),
            dialect=item.dialect,
            needs=item.needs,
        )
        for item in catalogue
    )


def _links(references: Iterable[Reference]) -> tuple[ReportLink, ...]:
    return tuple(ReportLink(name=line(item.name), url=address(item.url)) for item in references)


def digest(words: Iterable[str]) -> str:
    """Return a short SHA-256 digest of a sequence of words."""
    return hashlib.sha256("\0".join(words).encode(errors="replace")).hexdigest()[:16]


def catalogue_digest(catalogue: Catalogue) -> str:
    """Return a digest of the ids, levels and statements of the catalogue's requirements."""
    return digest(f"{item.id} {item.level} {item.statement}" for item in catalogue)


def matrices(recorder: Recorder) -> tuple[MatrixResult, ...]:
    """Return the recorded matrices, the largest first; the cells of each are in a fixed order."""
    found = []
    for title, cells in recorder.cells():
        stage = recorder.stages.get(title)
        order = _order(stage)
        recorded = [_cell(cell, seen) for cell, seen in cells.items()]
        found.append(matrix(line(title), sorted(recorded, key=order), stage))
    return tuple(sorted(found, key=lambda item: (-item.counts.cells, item.title)))


def _order(stage: Stage | None) -> Callable[[CellResult], Any]:
    """Return the sort key of cells.

    The key puts containers first, in the order of their start, and the world's namespaces after
    them.
    """
    containers = [item.name for item in stage.containers] if stage else []
    sources = [*containers, *OUTSIDERS]
    targets = [SELF, LOOPBACK, *containers, GATEWAY, HOST, INTERNET, BY_NAME, NS1, NS2, BR0]

    def rank(names: Sequence[str], name: str) -> tuple[int, str]:
        return (names.index(name), "") if name in names else (len(names), name)

    def key(cell: CellResult) -> Any:
        return (
            rank(sources, cell.source),
            rank(targets, cell.target),
            PROTOCOLS.index(cell.protocol),
            cell.family,
        )

    return key


def _cell(cell: Cell, seen: Seen) -> CellResult:
    observed = seen.observed
    if observed is not None:
        observed = replace(
            observed,
            code=line(observed.code),
            seen_from=None if observed.seen_from is None else line(observed.seen_from),
            detail=shortened(line(observed.detail)),
            rtt=None if observed.rtt is None else round(observed.rtt, 6),
        )
    return CellResult(
        source=line(cell.source),
        target=line(cell.target),
        protocol=cell.protocol,
        family=cell.family,
        kept=seen.kept,
        promised=seen.promised,
        observed=observed,
        test=line(seen.test),
    )


def environment() -> dict[str, str]:
    """Return the versions of kernel, Python and packages; nothing here identifies the machine."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "netmodes": __version__,
        **{name: version(name) for name in ("pytest", "pytest-xdist", "pyroute2", "scapy")},
    }


def report(
    *, runtime: str, catalogue: Catalogue, recorder: Recorder, tests: Collected, **more: Any
) -> Report:
    """Return the whole report; `more` has the fields of `Report` that no other argument gives."""
    return concluded(
        Report(
            generator=f"netmodes {__version__}",
            implementation=replace(recorder.runtime or Implementation(name=""), name=line(runtime)),
            requirements=rows(catalogue),
            tests=tests.tests(),
            matrices=matrices(recorder),
            environment=environment(),
            totals=Totals(),  # `concluded` counts
            **more,
        )
    )
