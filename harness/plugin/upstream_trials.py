"""The pytest plugin behind `netmodes coverage`.

The plugin collects the tests as usual. Then it tries each fault that replays a bug of
`suites/upstream`, and prints how many of the bugs the tests catch.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.faults.fault import Fault, FaultCatalogue, FaultError
from harness.faults.selection import runtime_name
from harness.faults.trials import Trials
from harness.faults.verdicts import FaultVerdict, Result
from harness.plugin.fault_trials import silence
from harness.plugin.requirements import CATALOGUE, known_faults
from harness.report import store, upstream
from harness.report.render import coverage_page, terminal
from harness.report.render.coverage_page import Results
from harness.report.sanitize import line
from harness.report.upstream import BadBugs, BugFile, Replayed


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that `netmodes coverage` passes on."""
    group = parser.getgroup("netmodes coverage")
    group.addoption("--at-once", type=int, default=1, metavar="N", help="replays to try at once")
    group.addoption("--bugs", metavar="DIR", help="folder of bugs (default: suites/upstream)")
    group.addoption("--page", metavar="DIR", help="write DIR/coverage.md")


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin that tries the replays."""
    config.pluginmanager.register(UpstreamTrials(), "netmodes-coverage")


class UpstreamTrials:
    """Plugin that tries the replays; the exit code is 1 if a trial contradicts a record."""

    def __init__(self) -> None:
        self._failed = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try the replays, print the tables and, with `--page`, write the page."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        config, catalogue = session.config, session.config.stash[CATALOGUE]
        folder = config.getoption("bugs")
        try:
            place = Path(folder) if folder else importlib.resources.files("suites") / "upstream"
            files = upstream.load(place, catalogue)
            faults = known_faults(config)
        except (BadBugs, FaultError) as error:
            raise pytest.UsageError(str(error)) from error
        silence(config)
        console = terminal.console()
        trials = Trials(
            list(_replays(files, faults)),
            workers=config.getoption("at_once"),
            on_verdict=lambda _: None,
            on_start=lambda _: None,
        )
        trials.run(session, [row.id for row in catalogue])
        replayed = {item.fault.id: _replayed(item) for item in trials.verdicts}
        results = {
            file.project: [upstream.judge(bug, replayed) for bug in file.bug] for file in files
        }
        console.print(coverage_page.table("project", coverage_page.by_project(results)))
        console.print(coverage_page.table("class", coverage_page.by_class(results)))
        for message in (*_surprises(results), *_unsound(trials)):
            self._failed = True
            console.print(message, style="red", markup=False, soft_wrap=True)
        if page := config.getoption("page"):
            text = coverage_page.page(results, catalogue, runtime_name(config))
            store.make_folder(Path(page))
            store.replace(Path(page) / "coverage.md", text)
        session.testscollected = max(1, session.testscollected)
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Set the exit code."""
        if self._failed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _replays(files: tuple[BugFile, ...], faults: FaultCatalogue) -> Iterator[Fault]:
    wanted = {bug.fault for file in files for bug in file.bug}
    return (item for item in faults if item.id in wanted)


def _replayed(verdict: FaultVerdict) -> Replayed:
    broken = verdict.said if verdict.fate is Result.BROKEN else ""
    return Replayed(verdict.killers, verdict.fate is not Result.UNSUPPORTED, broken)


def _surprises(results: Results) -> Iterator[str]:
    for verdicts in results.values():
        for item in verdicts:
            if item.surprise:
                yield f"{item.bug.ref}: {line(item.surprise)}"


def _unsound(trials: Trials) -> Iterator[str]:
    for test, message in trials.unsound.items():
        yield f"fails without a fault {line(test)}: {line(message)}"
