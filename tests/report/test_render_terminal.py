"""Tests of the matrix on the terminal: completeness, width and colours."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.matrix import Matrix
from harness.model.plan import FAMILIES, PROTOCOLS, Cell, Observation, Outcome, Promise
from harness.report.render.terminal import render
from tests.model.reference import CELL, KEPT, LOST, PROMISED, REPLY, changed, keeping


def test_matrix_table_fits_the_terminal() -> None:
    """The matrix fits the terminal's width; with 100 columns two blocks are side by side."""
    picture = render(PROMISED, keeping(PROMISED))
    lines = picture.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("container01") and "container02" in line for line in lines)
    assert max(map(len, render(PROMISED, width=50).splitlines())) <= 50


def test_matrix_table_has_every_source_and_target() -> None:
    """The table shows every cell that has a promise."""
    lines = render(PROMISED, width=50).splitlines()
    for source in {cell.source for cell in PROMISED}:
        start = lines.index(next(ln for ln in lines if ln.startswith(source + " ")))
        end = lines.index("", start)
        shown = [line.split()[0] for line in lines[start + 1 : end]]
        assert shown == list(dict.fromkeys(c.target for c in PROMISED if c.source == source))


@pytest.mark.parametrize(
    ("promise", "seen", "mark"),
    [
        (REPLY, KEPT, "✓64"),
        (replace(REPLY, ttl=None), replace(KEPT, ttl=None, seen_ttl=None), "✓"),
        (Promise(Outcome.DROPPED), LOST, "✗"),
        (Promise(Outcome.NO_ROUTE), Observation(Outcome.NO_ROUTE), "—"),
        (Promise(Outcome.NO_NAME), Observation(Outcome.NO_NAME), "?"),
        (Promise(Outcome.REJECTED), Observation(Outcome.REJECTED, code="rst"), "⊘"),
        (REPLY, LOST, "!✗"),
        (REPLY, replace(KEPT, ttl=63), "!63"),
        (REPLY, replace(KEPT, seen_from="host"), "!64"),
        (Promise(Outcome.DROPPED), KEPT, "!64"),
        (REPLY, replace(KEPT, outcome=Outcome.WRONG_PEER, ttl=None), "!≠"),
        (REPLY, None, "!∅"),
        (None, KEPT, "!64"),
    ],
)
def test_matrix_symbols_need_no_colour(
    promise: Promise | None, seen: Observation | None, mark: str
) -> None:
    """Every outcome has a symbol of its own, and a wrong cell has a mark besides its colour."""
    picture = render(
        Matrix({CELL: promise} if promise else {}), Matrix({CELL: seen} if seen else {})
    )
    assert picture.splitlines()[2].split() == ["b", mark]


def test_matrix_table_without_observations_shows_the_promise() -> None:
    """Without observations the table shows the promises of the oracle."""
    picture = render(Matrix({CELL: REPLY}))
    assert "✓64" in picture
    assert picture.splitlines()[-1] == "1 cells promised"


def test_matrix_table_counts_wrong_cells() -> None:
    """The last line of the matrix table has the number of wrong cells."""
    seen = changed(keeping(PROMISED), source="container01", target="ns1", family=4)
    assert (
        render(PROMISED, seen).splitlines()[-1]
        == f"{len(PROMISED)} cells, {len(PROMISED) - 3} as promised, 3 wrong"
    )


def test_matrix_colour_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the colour option the matrix has no escape sequences.

    Environment variables do not matter.
    """
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in render(PROMISED)
    assert "\x1b[32m✓64" in render(PROMISED, colour=True)


def test_matrix_does_not_interpret_rich_markup_in_names() -> None:
    """A name that contains Rich's markup is printed unchanged."""
    cells = {
        Cell(n, n, *ch): REPLY for n, ch in product(["[red]x[/]"], product(PROTOCOLS, FAMILIES))
    }
    assert render(Matrix(cells)).count("[red]x[/]") == 2


@given(st.text())
def test_matrix_escapes_control_characters_in_names(text: str) -> None:
    """Control characters in a name are escaped before they reach the terminal."""
    cell = replace(CELL, source=text, target=text)
    assert all(line.isprintable() for line in render(Matrix({cell: REPLY})).split("\n"))
