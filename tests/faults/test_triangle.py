"""Tests of the coverage table, which has each requirement's tests, faults and known bugs."""

from __future__ import annotations

from pathlib import Path

from harness.faults.fault import discover
from harness.faults.verdicts import holes, rows
from harness.model.requirements import load
from tests.faults.making import catalogue, harmless

CATALOGUE = load(Path(__file__).parents[2] / "suites" / "requirements.toml")
LEAST = 120


def test_table_reports_requirement_that_lacks_a_test_fault_or_replay() -> None:
    """The table reports a requirement without a test, and one without a fault.

    It also reports a known bug that no fault replays.
    """
    requirements = catalogue("AB-1", "AB-2", history="moby#1")
    found = rows(requirements, {"AB-1": 3}, [harmless(violates=("AB-1",))])
    assert list(holes(found)) == [
        "AB-1: moby#1 is not replayed",
        "AB-2: no test",
        "AB-2: no fault",
    ]


def test_complete_row_has_no_hole() -> None:
    """A requirement with a test, a fault and a replay has no hole in the table.

    Its row has the number of tests and the faults.
    """
    whole = harmless(violates=("AB-1",), history="moby#1")
    (row,) = rows(catalogue("AB-1", history="moby#1"), {"AB-1": 3}, [whole])
    assert (row.tests, row.faults, row.holes) == (3, (whole,), ())


def test_every_requirement_has_a_fault() -> None:
    """Every requirement has a fault.

    Every known bug of a real runtime is replayed by a fault.
    """
    faults = discover(CATALOGUE).own
    assert len(faults) >= LEAST
    tested = {requirement.id: 1 for requirement in CATALOGUE}
    assert list(holes(rows(CATALOGUE, tested, faults))) == []


def test_catalogue_lists_every_bug_report_that_a_fault_cites() -> None:
    """Every bug report that a fault cites is also a link of a requirement in the catalogue."""
    known = {reference.name for requirement in CATALOGUE for reference in requirement.history}
    assert {name for item in discover(CATALOGUE).own for name in item.history} <= known
