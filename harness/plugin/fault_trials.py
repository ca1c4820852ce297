"""The pytest plugin behind `netmodes faults`: tries faults in place of running the tests once."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Final

import pytest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from harness.faults.fault import Fault, FaultError, UnknownFault
from harness.faults.trials import Trials
from harness.faults.verdicts import FaultVerdict, Result
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
_TELLER: Final = pytest.StashKey["_Teller"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `netmodes faults` passes on."""
    group = parser.getgroup("netmodes faults")
    group.addoption("--try", action="append", default=[], metavar="ID", help="a fault to try")
    group.addoption("--at-once", type=int, default=1, metavar="N", help="how many at once")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try every fault that was asked for, a few at a time, and tell what became of each."""
    from harness.plugin.requirements import CATALOGUE, known_faults

    if session.testsfailed:
        raise session.Interrupted("the tests cannot be collected")
    config = session.config
    try:
        faults = known_faults(config)
        chosen = [faults[id_] for id_ in config.getoption("try")] or list(faults)
    except (UnknownFault, FaultError) as error:
        raise pytest.UsageError(str(error)) from error
    for name in _SILENCED:
        if plugin := config.pluginmanager.get_plugin(name):
            config.pluginmanager.unregister(plugin)
    teller = config.stash[_TELLER] = _Teller(len(chosen))
    trials = Trials(
        chosen, workers=config.getoption("at_once"), on_verdict=teller.tell, on_start=teller.begin
    )
    trials.run(session, [row.id for row in config.stash[CATALOGUE]])
    teller.stop()
    teller.sum_up(trials)
    session.testscollected = max(1, session.testscollected)
    return True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the exit code tell whether every fault was caught."""
    teller = session.config.stash.get(_TELLER, None)
    if teller is not None and not teller.fine:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class _Teller:
    """The bar while faults are tried, what is tried and the time left; the table afterwards."""

    fine = True

    def __init__(self, total: int) -> None:
        width = None if sys.stdout.isatty() else 160
        self._console = Console(highlight=False, width=width)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        # Drawn by this thread alone: a second one would be lost in every fork.
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
        """A fault is tried, or the healthy runtime."""
        self._progress.start()
        now = "the healthy runtime" if fault is None else fault.id
        self._progress.update(self._task, description=_escaped(now), refresh=True)

    def tell(self, verdict: FaultVerdict) -> None:
        """One fault more has met its fate."""
        if verdict.fate is not Result.CAUGHT:
            self._progress.console.print(self._line(verdict))
        self._progress.update(self._task, advance=1, refresh=True)

    def stop(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    @staticmethod
    def _line(verdict: FaultVerdict) -> str:
        colour = _COLOURS[verdict.fate]
        return f"[{colour}]{verdict.fate}[/] {verdict.fault.id}: {_escaped(verdict.said)}"

    def sum_up(self, trials: Trials) -> None:
        """Print the table."""
        table = Table(title="what caught what", title_justify="left", box=None)
        for heading in ("fault", "fate", "violates", "caught by", "s"):
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
        for test, said in trials.unsound.items():
            self._console.print(
                f"[red]fails without any fault[/] {_escaped(test)}: {_escaped(said)}"
            )
        self.fine = (
            fates[Result.CAUGHT] + fates[Result.UNSUPPORTED] == len(trials.verdicts)
            and not trials.unsound
        )


def _escaped(text: str) -> str:
    return line(text).replace("[", "\\[")
