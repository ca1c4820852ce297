"""The pytest plugin behind `netmodes triangle`: collects tests, runs none, and prints the table."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Final

import pytest
from rich.console import Console
from rich.table import Table

from harness.faults.fault import FaultError
from harness.faults.trials import required
from harness.faults.verdicts import CoverageRow, holes, rows

_EXIT: Final = pytest.StashKey[int]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Count the tests of each requirement, and put them beside its faults."""
    from harness.plugin.requirements import CATALOGUE, known_faults

    try:
        faults = known_faults(session.config)
    except FaultError as error:
        raise pytest.UsageError(str(error)) from error
    tests = Counter(id_ for item in session.items for id_ in required(item))
    table = rows(session.config.stash[CATALOGUE], tests, faults)
    session.items.clear()  # pytest would list them
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(_drawn(table))
    missing = list(holes(table))
    for hole in missing:
        console.print(f"[red]hole[/] {hole}", soft_wrap=True)
    console.print(
        f"{len(table)} requirements, {sum(tests.values())} times tested, {len(faults)} faults, "
        f"{len(missing)} holes"
    )
    session.config.stash[_EXIT] = int(bool(missing))


def _drawn(table: list[CoverageRow]) -> Table:
    drawn = Table(box=None)
    for heading in ("id", "level", "tests", "faults"):
        drawn.add_column(heading)
    for row in table:
        names = ", ".join(fault.id for fault in row.faults) or "[red]none[/]"
        tests = str(row.tests) if row.tests else "[red]none[/]"
        drawn.add_row(row.requirement.id, str(row.requirement.level), tests, names)
    return drawn


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the exit code tell whether there is a hole."""
    if _EXIT in session.config.stash:
        session.exitstatus = session.config.stash[_EXIT]
