"""The plugin that collects, compares and writes the report of a run, and its options."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.model.requirements import Catalogue
from harness.plugin import options
from harness.plugin.worker_notes import Sharding, WorkerNotes
from harness.report import build, expectations, merge, renamed_tests, schema, store
from harness.report.build import Collected
from harness.report.expectations import BadExpectations, Deviation, uncovered_version
from harness.report.recorder import BREAKS, PROPERTY, NodeIds, Recorder
from harness.report.sanitize import line, plain, sanitize_report
from harness.report.schema import BadReport, Report, Selection, Shard
from harness.sandbox import sandbox
from linux.syscalls import in_user_namespace


class Reporter:
    """Plugin of the controlling process that collects results, gates and writes the report.

    Raises `pytest.UsageError` if an expectation file cannot be read, or could not be written at the
    end of the run.
    """

    def __init__(
        self,
        config: pytest.Config,
        *,
        runtime: str,
        catalogue: Catalogue,
        recorder: Recorder,
        tests: Collected,
        suites: Path,
        shard: Shard | None,
    ) -> None:
        self._config, self._runtime, self._catalogue = config, runtime, catalogue
        self._recorder, self._suites, self._shard = recorder, suites, shard
        self._directory = directory(config)
        start = config.invocation_params.dir
        self._expect = config.getoption("expect")
        self._expected: Sequence[Deviation] = ()
        self._former_names = ""
        self._digest = "none"
        if self._expect is not None:
            with _as_usage_error("--expect"):
                self._expected, text, self._former_names = renamed_tests.read(start / self._expect)
                self._digest = _digest(text)
        write = config.getoption("write_expect")
        self._write_to = None if write is None else start / write
        if self._write_to is not None:
            with _as_usage_error("--write-expect"):
                store.check_writable(self._write_to)
        # Without these a run writes a report only if it tests a requirement.
        self._asked = bool(config.getoption("report") or self._expect or write or shard)
        self._tests = tests
        self._began = time.time()
        self._troubles: list[str] = []
        self._announced = False
        self._words: list[str] = []
        self._failed = False

    # --- during the run

    def pytest_sessionstart(self) -> None:
        """Replace an earlier report in the folder by a partial report of this run."""
        if self._asked:
            self._announce()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Escape control characters in the output of the runtime, and collect the result."""
        if report.longrepr is not None or report.sections:
            sanitize_report(report)
        self._tests.add(report)
        if not self._announced and any(
            name in (PROPERTY, BREAKS) for name, _ in report.user_properties
        ):
            self._announce()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record that a file cannot be collected, so that the report is partial."""
        if report.failed:
            sanitize_report(report)
            self._trouble(f"{report.nodeid} could not be collected")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object, error: object | None) -> None:
        """Record that a worker was killed: the report is partial, because its records are lost."""
        if error:
            name = getattr(getattr(node, "gateway", None), "id", "a worker")
            lines = plain(str(error)).strip().splitlines()
            self._trouble(f"worker {name} ended early: {lines[-1] if lines else 'killed'}")

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Record an interrupt, so that the report is partial."""
        self._trouble(f"interrupted: {excinfo.typename} {plain(str(excinfo.value))}".strip())

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Record an internal error of pytest, so that the report is partial."""
        self._trouble(f"internal error: {excinfo.exconly()}")

    def _trouble(self, words: str) -> None:
        self._troubles.append(line(words.splitlines()[0]))

    def _announce(self) -> None:
        self._announced = True
        if self._directory is None:
            return
        begun = self._report(pytest.ExitCode.INTERRUPTED, ["the run did not finish"])
        try:
            store.begin(begun, self._directory)
            store.remove_evidence(self._directory, before=self._began)
        except OSError as error:
            self._cannot_write(error, begun)

    # --- at the end

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the report; a failed gate or a failed write changes the exit status of the run."""
        if not self._announced and not self._asked:
            return
        status = int(exitstatus)
        if status == pytest.ExitCode.NO_TESTS_COLLECTED and self._recorder.collected.get(
            "elsewhere"
        ):
            status = int(pytest.ExitCode.OK)  # other shards have tests
        report = self._report(status, self._missing(session, status))
        try:
            report, status = self._gated(report, status)
        except (BadExpectations, OSError) as error:
            self._say(f"gate: {error}", bad=True)
            status = status or pytest.ExitCode.TESTS_FAILED
        known = self._suites / "expected"
        try:
            self._say(uncovered_version(self._runtime, report.implementation.version, known))
        except (BadExpectations, OSError) as error:
            self._say(str(error), bad=True)
        if report.partial:
            self._say(f"report: partial: {'; '.join(report.partial)}", bad=True)
            status = status or pytest.ExitCode.TESTS_FAILED
        report = replace(report, exit=status)
        self._write(report)
        if self._failed:
            status = status or pytest.ExitCode.TESTS_FAILED
        if status != exitstatus:
            session.exitstatus = status

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
        config, known = self._config, self._recorder.collected
        everything = [*known.get("kept", ()), *known.get("elsewhere", ())]
        selection = Selection(
            arguments=tuple(map(str, config.args)),
            pyargs=config.getoption("pyargs"),
            expectations=self._digest,
            collected=len(known.get("kept", ())),
            deselected=len(known.get("deselected", ())),
            narrowed=_narrowed(config, self._suites) or bool(known.get("deselected")),
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
            seeds=_seeds(config),
            selection=selection,
            shard=self._shard,
        )
        user = "root" if os.geteuid() == 0 and not in_user_namespace() else "ordinary"
        where = "private namespaces" if sandbox.inside() else "none"
        run = {"user": user, "sandbox": where}
        if fault := config.getoption("fault"):
            run["fault"] = line(fault)
        if probe := options.non_default(config, "probe"):
            run["probe"] = probe
        return replace(made, environment={**made.environment, **run})

    def _gated(self, report: Report, status: int) -> tuple[Report, int]:
        if self._expect is not None:
            result = expectations.compare(
                report, self._expected, file=self._expect, gone=self._gone
            )
            report = replace(report, gate=result)
            for number, words in enumerate(expectations.summary_lines(result, report)):
                self._say(words, bad=number == 0 and not result.ok)
            if self._former_names:
                self._say(self._former_names)
            if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                status = pytest.ExitCode.OK if result.ok else pytest.ExitCode.TESTS_FAILED
        if self._write_to is not None:
            self._write_expectations(report, self._write_to)
        return report, int(status)

    def _write_expectations(self, report: Report, path: Path) -> None:
        if report.partial:
            raise BadExpectations(f"{path} is unchanged: the run is partial")
        before: Sequence[Deviation] = ()
        if path.exists():
            before, _, _ = renamed_tests.read(path)
        after = expectations.updated(report, before, gone=self._gone)
        try:
            store.replace(path, expectations.dumps(after))
        except OSError as error:
            why = f"{path} is unchanged: {error.strerror or error}"
            raise BadExpectations(why) from error
        self._say(f"expectations: {len(after)} deviations in {path}")

    def _gone(self, node_id: str) -> bool:
        """Return whether a test no longer exists: neither the test nor its file was found.

        If the command line names single tests, a test is gone only if its file does not exist: the
        other tests of the file are not known.
        """
        known = {id_ for ids in self._recorder.collected.values() for id_ in ids}
        if not known or node_id in known:
            return False
        file = merge.file_of(node_id)
        by_name = any("::" in argument for argument in map(str, self._config.args))
        if not by_name and any(merge.file_of(id_) == file for id_ in known):
            return True
        package = Path(__file__).parents[2]
        return not any((root / file).exists() for root in (self._config.rootpath, package))

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

    def _put(self, report: Report, folder: Path) -> None:
        """Write the report and its evidence to a folder."""
        first = directory(self._config)  # workers write it there, also if the report is elsewhere
        if first is not None and folder != first:
            report = store.bring_evidence(report, first, folder)
        store.write(report, folder)

    def _cannot_write(self, error: OSError, report: Report) -> None:
        """Write a partial report to a new temporary folder instead, and print its path."""
        if self._failed:
            return
        self._failed = True
        why = f"cannot write to {self._directory}: {error.strerror or error}"
        self._trouble(why)
        instead = "give another folder with --report, or pass --no-report"
        with contextlib.suppress(OSError):
            fresh = Path(tempfile.mkdtemp(prefix="netmodes-report-"))
            self._put(store.as_partial(report, line(why)), fresh)
            self._directory = fresh
            instead = f"a partial report is in {fresh}"
        self._say(f"report: {why}; {instead}", bad=True)

    # --- messages

    def _say(self, words: str, *, bad: bool = False) -> None:
        if words:
            self._words.append(("!" if bad else " ") + line(words))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the path of the report and the result of the gate."""
        if self._words:
            terminalreporter.section(f"{line(self._runtime)}: report")
        for words in self._words:
            terminalreporter.write_line(words[1:], red=words[0] == "!")
        self._words = []

    def pytest_unconfigure(self) -> None:
        """Print the path and the result of the gate if an interrupt prevented pytest's summary."""
        for words in self._words:
            sys.stderr.write(words[1:] + "\n")


# --- options


def directory(config: pytest.Config) -> Path | None:
    """Return the report's folder, or `None` if no report is written. Raises `pytest.UsageError`."""
    report = config.getoption("report")
    if config.getoption("no_report"):
        if report:
            raise pytest.UsageError(
                "--report and --no-report contradict each other: give one of them"
            )
        return None
    if config.getoption("setuponly"):
        return None
    return config.invocation_params.dir / report if report else config.rootpath / options.REPORT


def register(
    config: pytest.Config,
    *,
    runtime: str,
    catalogue: Catalogue,
    recorder: Recorder,
    node_ids: NodeIds,
    tests: Collected,
    suites: Path,
) -> None:
    """Register the plugins for records, shards and the report. Raises `pytest.UsageError`.

    The report's plugin adds the results of the run to `tests`.
    """
    if config.getoption("dist", default="no") == "no":  # this process runs tests itself
        config.pluginmanager.register(WorkerNotes(recorder, node_ids), "netmodes-notes")
    shard, seconds = _sharding(config)
    if shard:
        plugin = Sharding(shard, seconds, recorder, node_ids)
        config.pluginmanager.register(plugin, "netmodes-shard")
    if hasattr(config, "workerinput"):  # workers report to the controller
        return
    if config.getoption("collectonly") or config.getoption("setuponly"):  # or --setup-plan
        return
    reporter = Reporter(
        config,
        runtime=runtime,
        catalogue=catalogue,
        recorder=recorder,
        tests=tests,
        suites=suites,
        shard=shard,
    )
    config.pluginmanager.register(reporter, "netmodes-report")


@contextlib.contextmanager
def _as_usage_error(option: str) -> Iterator[None]:
    try:
        yield
    except BadExpectations as error:
        raise pytest.UsageError(f"{option} {error}") from error


def _sharding(config: pytest.Config) -> tuple[Shard | None, dict[str, float]]:
    """Return the shard that `--shard` names, and the duration of each test from `--shard-by`."""
    shard, by = config.getoption("shard"), config.getoption("shard_by")
    if shard is None:
        if by is not None:
            raise pytest.UsageError("--shard-by needs --shard: it balances shards")
        return None, {}
    try:
        part = merge.parse(shard)
    except merge.BadShard as error:
        raise pytest.UsageError(str(error)) from error
    if by is None:
        return part, {}
    try:
        report = schema.load(config.invocation_params.dir / by)
    except (BadReport, OSError) as error:
        raise pytest.UsageError(f"--shard-by {by}: {error}") from error
    seconds = {test.id: test.seconds for test in report.tests}
    times = "\0".join(f"{id_} {took}" for id_, took in sorted(seconds.items()))
    return replace(part, by=_digest(times)), seconds


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _narrowed(config: pytest.Config, suites: Path) -> bool:
    """Return whether the command line selects only a part of the suites."""
    if config.args_source != pytest.Config.ArgsSource.ARGS:
        return False
    for argument in config.args:
        if config.getoption("pyargs") and argument == suites.name:
            return False
        if suites.is_relative_to((config.invocation_params.dir / argument).resolve()):
            return False
    return True


def _seeds(config: pytest.Config) -> dict[str, str]:
    """Return the seeds that make the random choices of the run repeatable."""
    seeds = {"PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "")}
    if "hypothesis" in sys.modules or config.pluginmanager.hasplugin("hypothesispytest"):
        for name in ("hypothesis_seed", "hypothesis_profile"):
            seeds[name.replace("_", " ")] = str(config.getoption(name, default=None) or "")
    seeds["profile"] = str(config.getoption("profile", default=None) or "")
    return {name: value for name, value in seeds.items() if value}
