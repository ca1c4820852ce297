"""The summary in the terminal at the end of a run: requirements, and matrices as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from harness.model.requirements import Catalogue
from harness.report import build
from harness.report.build import Collected
from harness.report.judge import judged
from harness.report.recorder import BREAKS, Recorder, judge
from harness.report.schema import RequirementResult, TestResult, Verdict


class Summary:
    """Plugin of the controlling process that prints matrices and the verdicts of requirements."""

    def __init__(
        self, *, runtime: str, catalogue: Catalogue, recorder: Recorder, tests: Collected
    ) -> None:
        self._runtime = runtime
        self._catalogue = catalogue
        self._recorder = recorder
        self._tests = tests

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> tuple[str, str, str] | None:
        """Show a breakdown of the runtime as an error, and a leak as a failure.

        Without this hook pytest decides by the phase: an exception in a test's body is a failure,
        an exception in set-up or tear-down an error.
        """
        if not (isinstance(report, pytest.TestReport) and report.failed):
            return None
        if report.when not in ("setup", "teardown"):  # in the body, or a worker that died
            return ("error", "E", "ERROR") if judge(report) is Verdict.ERROR else None
        broken = any(name == BREAKS for name, _ in report.user_properties)
        return ("failed", "F", "FAILED") if broken else None

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Load the records of a worker that ends."""
        output: dict[str, str] = getattr(node, "workeroutput", {})
        if "netmodes" in output:
            self._recorder.load(output["netmodes"])

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        """Print the matrices, the broken requirements, and the counts of verdicts."""
        tests = self._tests.tests()
        if not any(test.requirements or test.breaks for test in tests):
            return
        found = judged(build.rows(self._catalogue), tests)
        from harness.report.render.terminal import render  # rich is slow to load

        for title, (promised, observed) in self._recorder.matrices().items():
            terminalreporter.section(f"{self._runtime}: {title}")
            writer = config.get_terminal_writer()
            width, colour = writer.fullwidth, writer.hasmarkup
            terminalreporter.write(render(promised, observed, width=width, colour=colour))
        terminalreporter.section(f"{self._runtime}: requirements")
        listed = [Verdict.BROKEN, Verdict.ERROR]
        if terminalreporter.verbosity > 0:
            listed += [Verdict.UNJUDGED, Verdict.KEPT]
        for verdict in listed:
            for row in (row for row in found if row.verdict is verdict):
                line = f"{verdict:12}{row.id:8}{row.level:7}{row.statement}"
                if row.because:
                    line += f" Its failed tests are explained by {', '.join(row.because)}."
                terminalreporter.write_line(line)
        for lacking, ids in self._unsupported(found, tests).items():
            line = f"{Verdict.UNSUPPORTED:12}{', '.join(ids)}: {lacking}"
            terminalreporter.write_line(line)
        tally = Counter(row.verdict for row in found)
        shown = [verdict for verdict in reversed(Verdict) if verdict is not Verdict.UNTESTED]
        parts = [f"{tally[verdict]} {verdict}" for verdict in shown if tally[verdict]]
        untested = tally[Verdict.UNTESTED]
        terminalreporter.write_line(", ".join([*parts, f"{untested} not tested in this run"]))

    @staticmethod
    def _unsupported(
        found: Sequence[RequirementResult], tests: Sequence[TestResult]
    ) -> dict[str, list[str]]:
        """Return the ids of unsupported requirements by the feature that they lack."""
        reasons = {test.id: test.reason for test in tests}
        lacking: dict[str, list[str]] = {}
        for row in found:
            if row.verdict is Verdict.UNSUPPORTED:
                own = [reasons[id_] for id_ in row.tests if reasons[id_]]
                lacking.setdefault(min(own, key=len, default=""), []).append(row.id)
        return lacking
