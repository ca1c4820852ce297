"""Exact messages of failed comparisons; tests/model/test_matrix.py has the general laws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.model.matrix import Difference, Matrix, MatrixConflict, diff, explain
from harness.model.plan import Cell, Observation, Outcome, Promise, Protocol
from tests.model.reference import CELL, KEPT, LOST, REPLY

TCP = replace(CELL, protocol=Protocol.TCP)


def promised(*cells: Cell) -> Matrix[Promise]:
    """Return a matrix that promises a reply in each of these cells."""
    return Matrix(dict.fromkeys(cells, REPLY))


def lost(*cells: Cell) -> Matrix[Observation]:
    """Nothing came through in any of these cells."""
    return Matrix(dict.fromkeys(cells, LOST))


def peers(count: int) -> list[Cell]:
    """Cells from `a` to as many targets."""
    return [replace(CELL, target=f"b{number}") for number in range(count)]


# --- where it was observed -------------------------------------------------------


def test_parts_of_a_matrix_keep_its_origin() -> None:
    """The origin allows further queries and has no effect on equality."""
    here, there = object(), object()
    one = Matrix({CELL: KEPT}, origin=here)
    assert one.select(source="a").origin is here
    assert one.restrict([CELL]).origin is here
    assert one.merge(Matrix({TCP: KEPT}, origin=there)).origin is here
    assert Matrix({TCP: KEPT}).merge(one).origin is here
    assert Matrix({CELL: KEPT}).origin is None
    assert one == Matrix({CELL: KEPT}, origin=there)


def test_matrix_repr_shows_number_of_cells() -> None:
    """The repr is short because the assertion message shows the cells."""
    assert repr(lost(CELL, TCP)) == "<Matrix of 2 cells>"


def test_matrix_conflict_shows_cell_and_both_entries() -> None:
    """The message begins with the cell."""
    said = r"^a → b icmp/4: reply, ttl 64, seen as a here, dropped there$"
    with pytest.raises(MatrixConflict, match=said):
        Matrix({CELL: KEPT}).merge(Matrix({CELL: LOST}))


# --- how much is shown -----------------------------------------------------------


def test_seventh_explanation_entry_is_only_counted() -> None:
    """Six entries are shown, and the last line counts the rest."""
    six, seven = (explain(lost(*peers(count)), promised(*peers(count))) for count in (6, 7))
    assert [line for line in six if " → " in line] == [
        f"  a → b{number} icmp over IPv4" for number in range(6)
    ]
    assert not six[-1].startswith("  and")
    assert seven[:-1] == ["7 of 7 cells are wrong", *six[1:]]
    assert seven[-1] == "  and 1 more, from a"


def test_last_line_of_explanation_names_sources_of_hidden_cells() -> None:
    """Each source is named once, in order, with control characters escaped."""
    cells = [CELL, *(replace(CELL, source=name) for name in ("c", "d\x1b"))]
    cells += [replace(cell, target="z") for cell in cells[1:]]
    *_, last = explain(lost(*cells), promised(*cells), limit=1)
    assert last == r"  and 4 more, from c, d\x1b"


# --- what they share -------------------------------------------------------------


def test_explanation_omits_uninformative_common_values() -> None:
    """Common values are left out for one wrong cell, all wrong cells, or a single value."""
    one, other = CELL, replace(CELL, target="c")
    assert explain(lost(one, other), promised(one, other))[1] == "  a → b icmp over IPv4"
    seen = Matrix({**lost(one), other: KEPT})
    assert explain(seen, promised(one, other))[1] == "  a → b icmp over IPv4"
    there = replace(CELL, target="c", protocol=Protocol.TCP)
    cells = [CELL, TCP, other, there]
    seen = Matrix({**lost(CELL, TCP), other: KEPT, there: KEPT})
    assert explain(seen, promised(*cells))[1:4] == [
        "all of them to b",
        "every cell to b",
        "  a → b icmp, tcp over IPv4",
    ]


def test_explanation_says_every_cell_only_for_two_or_more_cells() -> None:
    """Two of two cells are "every cell"; one of one and two of three are not."""
    corner, single = replace(CELL, target="c"), replace(CELL, target="d")
    row = [CELL, TCP, corner, replace(corner, protocol=Protocol.TCP), single]
    row.append(replace(CELL, source="z", target="c", family=6))
    seen: Matrix[Observation] = Matrix({**dict.fromkeys(row, KEPT), **lost(CELL, TCP, single)})
    lines = explain(seen, promised(*row))
    assert lines[:3] == [
        "3 of 6 cells are wrong",
        "all of them from a, over IPv4",
        "every cell to b",
    ]


def test_explanation_has_a_preposition_for_each_axis() -> None:
    """Source, target, protocol and family are introduced by from, to, by and over."""
    cells = [
        Cell(source, target, protocol, family)
        for source in ("a", "c")
        for target in ("b", "d")
        for protocol in (Protocol.ICMP, Protocol.TCP)
        for family in (4, 6)
    ]
    wrong = [cell for cell in cells if (cell.source, cell.protocol) == ("a", Protocol.TCP)]
    seen = Matrix({**dict.fromkeys(cells, KEPT), **lost(*wrong)})
    assert explain(seen, promised(*cells))[1:3] == [
        "all of them from a, by tcp",
        "  a → b tcp over IPv4 and IPv6",
    ]
    wrong = [cell for cell in cells if cell.source == "a" or cell.target == "d"]
    seen = Matrix({**dict.fromkeys(cells, KEPT), **lost(*wrong)})
    assert explain(seen, promised(*cells))[1] == "every cell from a, to d"


# --- one entry -------------------------------------------------------------------


def test_explanation_entry_shows_a_cell_with_ttl_if_there_is_one() -> None:
    """TCP cells have no TTL, so a cell of another protocol is shown."""
    udp = replace(CELL, protocol=Protocol.UDP)
    expected = Matrix({TCP: replace(REPLY, ttl=None), CELL: REPLY, udp: replace(REPLY, ttl=None)})
    assert explain(lost(TCP, CELL, udp), expected)[1:3] == [
        "  a → b tcp, icmp, udp over IPv4",
        "    promised: reply, ttl 64, seen as a",
    ]


def test_explanation_separates_different_promises_outcomes_and_ttls() -> None:
    """A different promise, outcome or TTL in one direction makes a separate entry."""
    for other, seen in (
        (replace(REPLY, why="two routers between"), LOST),
        (REPLY, Observation(Outcome.NO_ROUTE)),
        (replace(REPLY, ttl=63), replace(KEPT, seen_from="z")),
    ):
        both = Matrix({CELL: replace(KEPT, seen_from="z") if seen.ttl else LOST, TCP: seen})
        lines = explain(both, Matrix({CELL: REPLY, TCP: other}))
        assert [line for line in lines if " → " in line] == [
            "  a → b icmp over IPv4",
            "  a → b tcp over IPv4",
        ]
    answered, asked = replace(KEPT, ttl=63), replace(KEPT, seen_ttl=63)
    lines = explain(Matrix({CELL: answered, TCP: asked}), promised(CELL, TCP))
    assert lines[1] == "  a → b icmp, tcp over IPv4"


def test_explanation_of_unexpected_cell_has_no_reason() -> None:
    """The entry shows the observation with its detail."""
    told = Matrix({CELL: replace(KEPT, detail="a stray")})
    assert explain(told, Matrix[Promise]()) == [
        "1 of 1 cells are wrong",
        "  a → b icmp over IPv4",
        "    left: reply, ttl 64, seen as a (a stray)",
        "    right: nothing",
    ]


# --- what is known besides -------------------------------------------------------


def test_explanation_shows_lines_of_tell_callback_below_entry() -> None:
    """The callback is called once, with the cells that are shown."""
    asked: list[Sequence[Difference]] = []

    def tell(shown: Sequence[Difference]) -> dict[Cell, list[str]]:
        asked.append(shown)
        return {peers(3)[1]: ["it left by eth0\x07", "nothing came"]}

    lines = explain(lost(*peers(3)), promised(*peers(3)), limit=2, tell=tell)
    assert asked == [list(diff(lost(*peers(3)), promised(*peers(3)))[:2])]
    assert lines[-4:] == [
        "    BR-4: no router between",
        r"      it left by eth0\x07",
        "      nothing came",
        "  and 1 more, from a",
    ]
    assert len(lines) == 12
