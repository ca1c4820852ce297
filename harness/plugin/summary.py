"""The summary in the terminal at the end of a run: requirements, and matrices as tables."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.model.requirements import Catalogue, Requirement
from harness.report.recorder import BREAKS, PROPERTY, Recorder, judge, lacking_feature
from harness.report.schema import Verdict


class Summary:
    """Plugin of the controlling process that gathers verdicts and matrices, and prints them."""

    def __init__(self, *, runtime: str, catalogue: Catalogue, recorder: Recorder) -> None:
        self._runtime = runtime
        self._catalogue = catalogue
        self._recorder = recorder
        self._verdicts: dict[str, Verdict] = {}
        self._lacking: dict[str, str] = {}

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

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the result of a test for each of its requirements."""
        verdict = judge(report)
        if verdict is None:
            return
        for name, id_ in report.user_properties:
            if name in (PROPERTY, BREAKS):
                found = Verdict.BROKEN if name == BREAKS else verdict
                before = self._verdicts.get(str(id_), found)
                if lacking := lacking_feature(report):
                    listed = self._lacking.get(str(id_), lacking)
                    self._lacking[str(id_)] = min(listed, lacking, key=len)
                self._verdicts[str(id_)] = max(before, found, key=lambda item: item.weight)

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
        if not self._verdicts:
            return
        from harness.report.render.terminal import render  # rich is slow to load

        for title, (promised, observed) in self._recorder.matrices().items():
            terminalreporter.section(f"{self._runtime}: {title}")
            writer = config.get_terminal_writer()
            width, colour = writer.fullwidth, writer.hasmarkup
            terminalreporter.write(render(promised, observed, width=width, colour=colour))
        terminalreporter.section(f"{self._runtime}: requirements")
        listed = [Verdict.BROKEN, Verdict.ERROR]
        if terminalreporter.verbosity > 0:
            listed.append(Verdict.KEPT)
        for verdict in listed:
            for row in self._rows(verdict):
                line = f"{verdict:12}{row.id:8}{row.level:7}{row.statement}"
                terminalreporter.write_line(line)
        for lacking, ids in self._unsupported().items():
            line = f"{Verdict.UNSUPPORTED:12}{', '.join(ids)}: {lacking}"
            terminalreporter.write_line(line)
        counts = Counter(self._verdicts.values())
        parts = [f"{counts[verdict]} {verdict}" for verdict in reversed(Verdict) if counts[verdict]]
        untested = len(self._catalogue) - len(self._verdicts)
        terminalreporter.write_line(", ".join([*parts, f"{untested} not tested in this run"]))

    def _rows(self, verdict: Verdict) -> list[Requirement]:
        return [row for row in self._catalogue if self._verdicts.get(row.id) is verdict]

    def _unsupported(self) -> dict[str, list[str]]:
        """Return the ids of unsupported requirements by the feature that they lack."""
        found: dict[str, list[str]] = {}
        for row in self._rows(Verdict.UNSUPPORTED):
            found.setdefault(self._lacking[row.id], []).append(row.id)
        return found
