"""The plugin of the controlling process that gathers a report, holds it to the gate, writes it."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness.model.requirements import Catalogue
from harness.report import build, expectations, gate, merge, store
from harness.report.build import Collected
from harness.report.expectations import BadExpectations, Deviation, unseen
from harness.report.recorder import BREAKS, PROPERTY, NodeIds, Recorder
from harness.report.sanitize import disarm, line, plain
from harness.report.schema import Report, Selection, Shard
from harness.sandbox import sandbox
from linux.syscalls import in_user_namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What was asked for.

    `directory` is where the report goes, `None` for none. `asked` is false where that is
    only the default, and of no shard: then a run that tests no requirement leaves none.
    `expected` is the file for the gate, with the deviations in it, `expectations` a digest of
    it; `write` the one to be written. `fault` is what the runtime is sabotaged with, `probe`
    how matrices are asked where that was said.
    `known` is the folder of the suites' own expectation files.
    """

    known: Path
    directory: Path | None = None
    asked: bool = False
    expected: tuple[str, Sequence[Deviation]] | None = None
    expectations: str = ""
    write: Path | None = None
    shard: Shard | None = None
    narrowed: bool = False
    arguments: tuple[str, ...] = ()
    pyargs: bool = False
    seeds: dict[str, str] = field(default_factory=dict)
    fault: str | None = None
    probe: str | None = None


class Reporter:
    """Gathers, writes, tells."""

    def __init__(
        self,
        order: ReportOptions,
        *,
        runtime: str,
        catalogue: Catalogue,
        recorder: Recorder,
        node_ids: NodeIds,
        root: Path,
    ) -> None:
        self._order, self._runtime, self._catalogue = order, runtime, catalogue
        self._recorder, self._root = recorder, root
        self._directory = order.directory
        self._tests = Collected(node_ids)
        self._began = time.time()
        self._troubles: list[str] = []
        self._announced = False
        self._words: list[str] = []
        self._failed = False

    # --- gathering

    def pytest_sessionstart(self) -> None:
        """Put a partial report in place of an earlier run's."""
        if self._order.asked:
            self._announce()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Make what the runtime said harmless, and keep it."""
        if report.longrepr is not None or report.sections:
            disarm(report)
        self._tests.add(report)
        if not self._announced and any(
            name in (PROPERTY, BREAKS) for name, _ in report.user_properties
        ):
            self._announce()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected is missing in the report."""
        if report.failed:
            disarm(report)
            self._trouble(f"{report.nodeid} could not be collected")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object, error: object | None) -> None:
        """A worker that was killed took with it what it had recorded."""
        if error:
            name = getattr(getattr(node, "gateway", None), "id", "a worker")
            said = plain(str(error)).strip().splitlines()
            self._trouble(f"worker {name} ended early: {said[-1] if said else 'killed'}")

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """The run was stopped by hand, or by what is as final."""
        self._trouble(f"interrupted: {excinfo.typename} {plain(str(excinfo.value))}".strip())

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """The run broke."""
        self._trouble(f"internal error: {excinfo.exconly()}")

    def _trouble(self, words: str) -> None:
        self._troubles.append(line(words.splitlines()[0]))

    def _announce(self) -> None:
        self._announced = True
        if self._directory is None:
            return
        begun = self._report(pytest.ExitCode.INTERRUPTED, ["the run has not come to its end"])
        try:
            store.announce(begun, self._directory)
            store.remove_evidence(self._directory, before=self._began)
        except OSError as error:
            self._cannot_write(error, begun)

    # --- at the end

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the report, after all tests; the exit status follows the gate and the disk."""
        if not self._announced and not self._order.asked and not self._order.expected:
            return
        status = int(exitstatus)
        if status == pytest.ExitCode.NO_TESTS_COLLECTED and self._elsewhere():
            status = int(pytest.ExitCode.OK)
        report = self._report(status, self._missing(session, status))
        try:
            report, status = self._gated(report, status)
        except (BadExpectations, OSError) as error:
            self._say(f"gate: {error}", bad=True)
            status = status or pytest.ExitCode.TESTS_FAILED
        try:
            self._say(unseen(self._runtime, report.implementation.version, self._order.known))
        except (BadExpectations, OSError, UnicodeDecodeError) as error:
            self._say(f"{self._order.known}: {error}", bad=True)
        if report.partial:
            self._say(f"report: partial: {'; '.join(report.partial)}", bad=True)
            status = status or pytest.ExitCode.TESTS_FAILED
        report = replace(report, exit=status)
        self._write(report)
        if self._failed:
            status = status or pytest.ExitCode.TESTS_FAILED
        if status != exitstatus:
            session.exitstatus = status

    def _elsewhere(self) -> bool:
        """Whether other shards have tests: one that has none has done its part."""
        return bool(self._recorder.collected.get("elsewhere"))

    def _missing(self, session: pytest.Session, exitstatus: int) -> list[str]:
        reasons = list(dict.fromkeys(self._troubles))
        ran, found = len(self._tests.tests()), session.testscollected
        if ran < found:
            reasons.append(f"{found - ran} of {found} tests did not run")
        if not reasons and exitstatus in (
            pytest.ExitCode.INTERRUPTED,
            pytest.ExitCode.INTERNAL_ERROR,
        ):
            reasons.append("the run was interrupted")
        return reasons

    def _report(self, exitstatus: int, partial: Sequence[str]) -> Report:
        known = self._recorder.collected
        everything = [*known.get("kept", ()), *known.get("elsewhere", ())]
        selection = Selection(
            arguments=self._order.arguments,
            pyargs=self._order.pyargs,
            expectations=self._order.expectations,
            collected=len(known.get("kept", ())),
            deselected=len(known.get("deselected", ())),
            narrowed=self._order.narrowed or bool(known.get("deselected")),
            catalogue=build.catalogue_digest(self._catalogue),
            tests=build.digest(sorted(everything)),
        )
        began = datetime.datetime.fromtimestamp(self._began, datetime.UTC)
        made = build.report(
            runtime=self._runtime,
            catalogue=self._catalogue,
            recorder=self._recorder,
            tests=self._tests,
            partial=tuple(partial),
            started=began.isoformat(timespec="seconds").replace("+00:00", "Z"),
            seconds=round(time.time() - self._began, 3),
            exit=int(exitstatus),
            seeds=self._order.seeds,
            selection=selection,
            shard=self._order.shard,
        )
        user = "root" if os.geteuid() == 0 and not in_user_namespace() else "ordinary"
        where = "private namespaces" if sandbox.inside() else "none"
        told = {"user": user, "sandbox": where}
        for name, value in (("fault", self._order.fault), ("probe", self._order.probe)):
            if value:
                told[name] = line(value)
        return replace(made, environment={**made.environment, **told})

    def _gated(self, report: Report, status: int) -> tuple[Report, int]:
        listed: Sequence[Deviation] = ()
        if self._order.expected:
            file, listed = self._order.expected
            result = gate.compare(report, listed, file=file, gone=self._gone)
            report = replace(report, gate=result)
            for number, words in enumerate(gate.in_words(result, report)):
                self._say(words, bad=number == 0 and not result.ok)
            if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                status = pytest.ExitCode.OK if result.ok else pytest.ExitCode.TESTS_FAILED
        if self._order.write:
            self._write_expectations(report, self._order.write)
        return report, int(status)

    def _write_expectations(self, report: Report, path: Path) -> None:
        if report.partial:
            raise BadExpectations(f"{path} is left as it was: the run is partial")
        before: Sequence[Deviation] = ()
        if path.exists():
            before, _ = store.listed(path)
        after = gate.rewritten(report, before, gone=self._gone)
        try:
            store.replace(path, expectations.dumps(after))
        except OSError as error:
            why = f"{path} is left as it was: {error.strerror or error}"
            raise BadExpectations(why) from error
        self._say(f"expectations: {len(after)} deviations in {path}")

    def _gone(self, node_id: str) -> bool:
        """Whether a test is not there any more: the run would have found it, or its file.

        Where tests are asked for by their names, nothing is known of their files' others.
        """
        known = {id_ for ids in self._recorder.collected.values() for id_ in ids}
        if not known or node_id in known:
            return False
        file = merge.file_of(node_id)
        by_name = any("::" in argument for argument in self._order.arguments)
        if not by_name and any(merge.file_of(id_) == file for id_ in known):
            return True
        package = Path(__file__).parents[2]
        return not any((root / file).exists() for root in (self._root, package))

    def _write(self, report: Report) -> None:
        try:
            if self._directory is not None:
                self._put(report, self._directory)
                self._say(f"report: {self._directory / store.PAGE}")
        except OSError as error:
            self._cannot_write(error, report)
        try:
            store.append_step_summary(report)
        except OSError as error:
            self._say(f"report: cannot append to ${store.STEP_SUMMARY}: {error}", bad=True)
            self._failed = True

    def _put(self, report: Report, directory: Path) -> None:
        """Write the report to a folder that has its evidence."""
        first = self._order.directory  # where workers put it, wherever the report goes by now
        if first is not None and directory != first:
            report = store.bring_evidence(report, first, directory)
        store.write(report, directory)

    def _cannot_write(self, error: OSError, report: Report) -> None:
        """Leave a report that says that it is partial in a fresh folder instead, and say so."""
        if self._failed:
            return
        self._failed = True
        why = f"cannot write to {self._directory}: {error.strerror or error}"
        self._trouble(why)
        instead = "give another folder with --report, or --no-report"
        with contextlib.suppress(OSError):
            fresh = Path(tempfile.mkdtemp(prefix="netmodes-report-"))
            self._put(store.cut_short(report, line(why)), fresh)
            self._directory = fresh
            instead = f"a partial report is in {fresh}"
        self._say(f"report: {why}; {instead}", bad=True)

    # --- telling

    def _say(self, words: str, *, bad: bool = False) -> None:
        if words:
            self._words.append(("!" if bad else " ") + line(words))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the report is, and what the gate says."""
        if self._words:
            terminalreporter.section(f"{line(self._runtime)}: report")
        for words in self._words:
            terminalreporter.write_line(words[1:], red=words[0] == "!")
        self._words = []

    def pytest_unconfigure(self) -> None:
        """Say it without a summary where there was none: after an interrupt in the wrong moment."""
        for words in self._words:
            sys.stderr.write(words[1:] + "\n")
