"""The pytest plugin behind `netmodes faults` and `netmodes triangle`.

The plugin collects the tests as usual. Then it tries each selected fault: it injects the fault and
checks that a test fails. With `--triangle` it runs no test, and prints the tests and the faults of
each requirement.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Final

import pytest
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from harness.faults.fault import Fault, FaultCatalogue, FaultError, UnknownFault
from harness.faults.trials import Trials, required
from harness.faults.verdicts import CoverageRow, FaultVerdict, Result, holes, rows
from harness.plugin.requirements import CATALOGUE, known_faults
from harness.report.render import terminal
from harness.report.sanitize import line

_COLOURS: Final = {
    Result.CAUGHT: "green",
    Result.UNSUPPORTED: "blue",
    Result.UNTESTED: "yellow",
    Result.STRAY: "magenta",
    Result.BROKEN: "red",
    Result.SURVIVED: "red",
}
_SILENCED: Final = ("netmodes-summary", "netmodes-report", "netmodes-notes", "netmodes-evidence")
"""Plugins that describe one run: in a trial they would overwrite the report of an earlier run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that `netmodes faults` and `netmodes triangle` pass on."""
    group = parser.getgroup("netmodes faults")
    group.addoption("--try", action="append", default=[], metavar="ID", help="fault to try")
    group.addoption("--at-once", type=int, default=1, metavar="N", help="faults to try at once")
    group.addoption(
        "--triangle", action="store_true", help="print the tests and faults of each requirement"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin that tries faults, or with `--triangle` the one that prints the table."""
    plugin = CoverageTable() if config.getoption("triangle") else FaultTrials()
    config.pluginmanager.register(plugin, "netmodes-faults")


def _faults(config: pytest.Config) -> FaultCatalogue:
    try:
        return known_faults(config)
    except FaultError as error:
        raise pytest.UsageError(str(error)) from error


def silence(config: pytest.Config) -> None:
    """Unregister the plugins that report a run."""
    for name in _SILENCED:
        if plugin := config.pluginmanager.get_plugin(name):
            config.pluginmanager.unregister(plugin)


class CoverageTable:
    """Plugin that prints the tests and the faults of each requirement.

    The exit code is 1 if a requirement has no test or no fault.
    """

    def __init__(self) -> None:
        self._exit = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the tests of each requirement and print the table."""
        faults = _faults(session.config).own
        tests = Counter(id_ for item in session.items for id_ in required(item))
        table = rows(session.config.stash[CATALOGUE], tests, faults)
        session.items.clear()  # pytest would list them
        console = terminal.console()
        console.print(_coverage(table))
        missing = list(holes(table))
        for hole in missing:
            console.print(f"[red]missing[/] {hole}", soft_wrap=True)
        console.print(
            f"{len(table)} requirements, {sum(tests.values())} tests, {len(faults)} faults, "
            f"{len(missing)} missing"
        )
        self._exit = int(bool(missing))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Set the exit code."""
        session.exitstatus = self._exit or session.exitstatus


def _coverage(table: list[CoverageRow]) -> Table:
    drawn = Table(box=None)
    for heading in ("id", "level", "tests", "faults"):
        drawn.add_column(heading)
    for row in table:
        names = ", ".join(fault.id for fault in row.faults) or "[red]none[/]"
        tests = str(row.tests) if row.tests else "[red]none[/]"
        drawn.add_row(row.requirement.id, str(row.requirement.level), tests, names)
    return drawn


class FaultTrials:
    """Plugin that tries the selected faults; the exit code is 1 unless tests catch every fault."""

    def __init__(self) -> None:
        self._failed = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try the faults, several of them in parallel, and print the result of each."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        config = session.config
        faults = _faults(config)
        try:
            chosen = [faults[id_] for id_ in config.getoption("try")] or list(faults.own)
        except UnknownFault as error:
            raise pytest.UsageError(str(error)) from error
        silence(config)
        display = _Display(len(chosen))
        trials = Trials(
            chosen,
            workers=config.getoption("at_once"),
            on_verdict=display.result,
            on_start=display.begin,
        )
        trials.run(session, [row.id for row in config.stash[CATALOGUE]])
        display.stop()
        self._failed = not display.sum_up(trials)
        session.testscollected = max(1, session.testscollected)
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Set the exit code."""
        if self._failed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


class _Display:
    """A progress bar with the current fault and the time left, and a final table of results."""

    def __init__(self, total: int) -> None:
        self._console = terminal.console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        # This thread draws it: a fork would not have a second thread.
        self._progress = Progress(
            *columns,
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            auto_refresh=False,
            transient=True,
            disable=not sys.stdout.isatty(),
        )
        self._task = self._progress.add_task("faults", total=total)

    def begin(self, fault: Fault | None) -> None:
        """Show the fault that is now tried; `None` stands for the runtime without a fault."""
        self._progress.start()
        now = "the healthy runtime" if fault is None else fault.id
        self._progress.update(self._task, description=_escaped(now), refresh=True)

    def result(self, verdict: FaultVerdict) -> None:
        """Advance the bar, and print the result unless it is "caught"."""
        if verdict.fate is not Result.CAUGHT:
            colour = _COLOURS[verdict.fate]
            words = f"[{colour}]{verdict.fate}[/] {verdict.fault.id}: {_escaped(verdict.said)}"
            self._progress.console.print(words)
        self._progress.update(self._task, advance=1, refresh=True)

    def stop(self) -> None:
        """Remove the bar from the terminal."""
        self._progress.stop()

    def sum_up(self, trials: Trials) -> bool:
        """Print the table; return whether every fault was caught and every test is sound."""
        table = Table(title="results of the faults", title_justify="left", box=None)
        for heading in ("fault", "result", "violates", "caught by", "seconds"):
            table.add_column(heading, overflow="fold")
        for verdict in trials.verdicts:
            killers = "\n".join(
                f"{_escaped(verdict.killers[id_].removeprefix('suites/'))}"
                if id_ in verdict.killers
                else "-"
                for id_ in verdict.fault.violates
            )
            fate = f"[{_COLOURS[verdict.fate]}]{verdict.fate}[/]"
            ids = "\n".join(verdict.fault.violates)
            table.add_row(verdict.fault.id, fate, ids, killers, f"{verdict.seconds:.1f}")
        self._console.print(table)
        fates = Counter(verdict.fate for verdict in trials.verdicts)
        counts = ", ".join(f"{fates[fate]} {fate}" for fate in Result if fates[fate])
        self._console.print(f"{len(trials.verdicts)} faults: {counts}")
        for test, message in trials.unsound.items():
            self._console.print(
                f"[red]fails without a fault[/] {_escaped(test)}: {_escaped(message)}"
            )
        caught = fates[Result.CAUGHT] + fates[Result.UNSUPPORTED]
        return caught == len(trials.verdicts) and not trials.unsound


def _escaped(text: str) -> str:
    return line(text).replace("[", "\\[")
