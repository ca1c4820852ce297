"""Tests of the matrix: equality, selections, and the explanation of a failed comparison."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.model.matrix import Difference, Matrix, MatrixConflict, diff, explain, printable
from harness.model.plan import Cell, Observation, Outcome, Promise, Protocol
from tests.model.reference import CELL, KEPT, LOST, PROMISED, REPLY, changed, keeping
from tests.model.strategies import cells, kept, matrices, observations, promises

TCP = replace(CELL, protocol=Protocol.TCP)


def promised(*cells: Cell) -> Matrix[Promise]:
    """Return a matrix that promises a reply in each of these cells."""
    return Matrix(dict.fromkeys(cells, REPLY))


def lost(*cells: Cell) -> Matrix[Observation]:
    """Return a matrix of these cells without any reply."""
    return Matrix(dict.fromkeys(cells, LOST))


def peers(count: int) -> list[Cell]:
    """Return cells from container `a` to as many targets."""
    return [replace(CELL, target=f"b{number}") for number in range(count)]


# --- equality ----------------------------------------------------------------


@given(st.data(), matrices(promises()))
def test_matrices_are_equal_if_all_promises_are_kept(
    data: st.DataObject, expected: Matrix[Promise]
) -> None:
    """An observed matrix equals the promised one if every promise is kept.

    The order of the two operands does not matter.
    """
    seen = Matrix({cell: data.draw(kept(promise)) for cell, promise in expected.items()})
    assert seen == expected
    assert expected == seen
    assert explain(seen, expected) == []


@given(matrices(promises()), matrices(observations()))
def test_matrix_equality_means_same_cells_and_kept_promises(
    expected: Matrix[Promise], seen: Matrix[Observation]
) -> None:
    """Matrices are equal if they have the same cells and every promise admits its observation."""
    held = set(expected) == set(seen) and all(expected[cell].admits(seen[cell]) for cell in seen)
    assert (seen == expected) == (expected == seen) == held
    assert (seen != expected) != held


@given(matrices(promises()).filter(len))
def test_promised_cell_without_observation_is_a_difference(expected: Matrix[Promise]) -> None:
    """A cell with a promise but no observation makes the matrices unequal.

    The explanation names the cell.
    """
    seen = keeping(expected)
    assert seen == expected
    *rest, missing = seen
    assert seen.restrict(rest) != expected
    assert [difference.cell for difference in diff(seen.restrict(rest), expected)] == [missing]


@given(matrices(promises()), cells())
def test_observed_cell_without_promise_is_a_difference(
    expected: Matrix[Promise], cell: Cell
) -> None:
    """A cell with an observation but no promise makes the matrices unequal."""
    expected = expected.restrict(set(expected) - {cell})
    seen = keeping(expected).merge(Matrix({cell: KEPT}))
    assert [difference.cell for difference in diff(expected, seen)] == [cell]


@given(matrices(observations()), matrices(observations()))
def test_two_observed_or_two_promised_matrices_compare_like_dicts(
    one: Matrix[Observation], other: Matrix[Observation]
) -> None:
    """Two observed matrices, or two promised ones, are equal like dictionaries."""
    assert one == Matrix(dict(one))
    assert (one == other) == (dict(one) == dict(other))


def test_matrix_differs_from_dict_and_is_unhashable() -> None:
    """A matrix never equals a dictionary.

    It has no hash, because equal matrices may differ in content.
    """
    assert Matrix({CELL: KEPT}) != {CELL: KEPT}
    with pytest.raises(TypeError, match="unhashable"):
        hash(Matrix[Promise]())


def test_pickled_matrix_keeps_cells_and_order() -> None:
    """Pickling keeps every cell of a matrix, in order."""
    again = pickle.loads(pickle.dumps(PROMISED))
    assert again == PROMISED
    assert list(again) == list(PROMISED)


# --- algebra -----------------------------------------------------------------


@given(matrices(promises()), st.sampled_from(["source", "target", "protocol", "family"]))
def test_selections_along_an_axis_partition_the_matrix(matrix: Matrix[Promise], axis: str) -> None:
    """The selections for all values of an axis are disjoint, and together are the whole matrix."""
    whole: Matrix[Promise] = Matrix()
    for value in {getattr(cell, axis) for cell in matrix}:
        part = matrix.select(**{axis: value})
        assert part
        assert {getattr(cell, axis) for cell in part} == {value}
        whole = whole.merge(part)
    assert whole == matrix


@given(matrices(promises()), cells())
def test_select_by_all_four_properties_finds_at_most_one_cell(
    matrix: Matrix[Promise], cell: Cell
) -> None:
    """A selection by all four properties of a cell contains at most one cell."""
    found = matrix.select(
        source=cell.source, target=cell.target, protocol=cell.protocol, family=cell.family
    )
    assert found == matrix.restrict([cell])
    assert len(found) == (cell in matrix)


@given(matrices(promises()), st.frozensets(cells()), st.frozensets(cells()))
def test_repeated_restrict_of_matrix_intersects_cells(
    matrix: Matrix[Promise], some: frozenset[Cell], others: frozenset[Cell]
) -> None:
    """A second `restrict` keeps only the cells that both calls name.

    `restrict` to all cells changes nothing.
    """
    assert matrix.restrict(some).restrict(others) == matrix.restrict(some & others)
    assert matrix.restrict(matrix) == matrix
    assert set(matrix.restrict(some)) == set(matrix) & some


@given(matrices(promises()), st.frozensets(cells()), st.frozensets(cells()))
def test_merge_of_matrix_parts_equals_restrict_to_their_union(
    matrix: Matrix[Promise], some: frozenset[Cell], others: frozenset[Cell]
) -> None:
    """The parts of a matrix merge in any order, without a conflict."""
    one, other = matrix.restrict(some), matrix.restrict(others)
    assert one.merge(other) == other.merge(one) == matrix.restrict(some | others)
    assert one.merge(one) == one
    assert one.merge(Matrix()) == one


def test_merge_of_conflicting_matrices_names_the_cell() -> None:
    """Matrices with different entries for a cell cannot be merged; the error names the cell."""
    said = "a → b icmp/4: reply, ttl 64, seen as a here, dropped there"
    with pytest.raises(MatrixConflict, match=f"^{said}$"):
        Matrix({CELL: KEPT}).merge(Matrix({CELL: LOST}))


@given(matrices(promises()), matrices(observations()))
def test_diff_follows_order_of_promised_matrix(
    expected: Matrix[Promise], seen: Matrix[Observation]
) -> None:
    """The difference of two matrices follows the order of the promised one.

    Cells without a promise come last.
    """
    order = list(dict.fromkeys([*expected, *seen]))
    for differences in (diff(expected, seen), diff(seen, expected)):
        where = [order.index(difference.cell) for difference in differences]
        if expected:
            assert where == sorted(where)
        assert all(d.promise == expected.get(d.cell) for d in differences)
        assert all(d.observation == seen.get(d.cell) for d in differences)


# --- explanations ------------------------------------------------------------


def test_explanation_shows_promise_observation_requirement_and_reason() -> None:
    """The explanation of a wrong cell has its promise, observation, requirement and reason.

    Correct cells are not shown.
    """
    expected = PROMISED.select(source="container01")
    seen = changed(keeping(expected), target="container02")
    assert explain(seen, expected) == [
        "3 of 66 cells are wrong",
        "all of them to container02, over IPv4",
        "every cell to container02",
        "  container01 → container02 icmp, udp, tcp over IPv4",
        "    promised: reply, ttl 64, seen as container01",
        "    observed: dropped",
        "    BR-4: no router between",
    ]


def test_explanation_does_not_depend_on_argument_order() -> None:
    """An explanation is the same with the promised matrix on either side of `==`."""
    seen = changed(keeping(PROMISED), target="ns1")
    assert explain(seen, PROMISED) == explain(PROMISED, seen)


@given(matrices(promises(), max_size=30), matrices(observations(), max_size=30))
@example(
    Matrix({CELL: Promise(Outcome.REPLY, requirement="BR-4", why="→ ")}), Matrix({CELL: LOST})
)  # a reason with the arrow of an entry
def test_explanation_has_at_most_six_entries_and_counts_the_rest(
    expected: Matrix[Promise], seen: Matrix[Observation]
) -> None:
    """An explanation has at most six entries.

    Each wrong cell is in an entry or counted in the last line.
    """
    lines = explain(seen, expected)
    wrong = diff(seen, expected)
    # The lines with an entry's details are indented more, and may have an arrow too.
    entries = [line for line in lines if " → " in line and re.match(r"  (?! )", line)]
    assert len(entries) <= 6
    assert bool(lines) == bool(wrong)
    if not wrong:
        return
    assert lines[0] == f"{len(wrong)} of {len({*expected, *seen})} cells are wrong"
    *_, last = lines
    more = int(last.split()[1]) if last.startswith("  and ") else 0
    assert sum(map(_cells_in, entries)) + more == len(wrong)


def _cells_in(entry: str) -> int:
    """Return the number of cells that the first line of an explanation's entry names."""
    channels = entry.split(" → ")[1].split(" ", 1)[1]
    protocols, over, families = channels.partition(" over ")
    return len(protocols.split(", ")) * (len(families.split(" and ")) if over else 1)


def test_explanation_distinguishes_missing_from_unexpected_cell() -> None:
    """A cell without observation and a cell without promise have different texts."""
    expected = Matrix({CELL: REPLY, replace(CELL, target="c"): REPLY})
    seen = Matrix({CELL: KEPT, replace(CELL, target="d"): KEPT})
    assert explain(seen, expected)[1:] == [
        "  a → c icmp over IPv4",
        "    promised: reply, ttl 64, seen as a",
        "    observed: nothing: never probed",
        "    BR-4: no router between",
        "  a → d icmp over IPv4",
        "    promised: nothing: there is no such cell",
        "    observed: reply, ttl 64, seen as a",
    ]


def test_explanation_of_two_observed_matrices_says_left_and_right() -> None:
    """The explanation of two observed matrices calls them left and right, and has no reasons.

    The probe's detail is shown beside each outcome.
    """
    told = Matrix({CELL: replace(KEPT, detail="a stray")})
    assert explain(told, Matrix[Observation]()) == [
        "1 of 1 cells are wrong",
        "  a → b icmp over IPv4",
        "    left: reply, ttl 64, seen as a (a stray)",
        "    right: nothing",
    ]


def test_explanation_groups_cells_with_equal_failure() -> None:
    """Wrong cells with a different wrong TTL are in separate entries.

    Cells with a correct or unknown TTL are in one entry.
    """
    tcp, udp = replace(CELL, protocol=Protocol.TCP), replace(CELL, protocol=Protocol.UDP)
    expected = Matrix({CELL: REPLY, udp: REPLY, tcp: replace(REPLY, ttl=None)})
    masqueraded = replace(KEPT, seen_from="host")
    seen = Matrix(
        {CELL: masqueraded, udp: masqueraded, tcp: Observation(Outcome.REPLY, seen_from="host")}
    )
    assert explain(seen, expected)[1] == "  a → b icmp, udp, tcp over IPv4"
    seen = Matrix({**seen, udp: replace(masqueraded, ttl=63)})
    assert [line for line in explain(seen, expected) if " → " in line] == [
        "  a → b icmp, tcp over IPv4",
        "  a → b udp over IPv4",
    ]


def test_explanation_entry_names_only_wrong_cells() -> None:
    """An entry lists its cells one by one if they are not all combinations of protocol and family.

    It therefore names wrong cells only.
    """
    corner = [CELL, Cell("a", "b", Protocol.UDP, 6)]
    lines = explain(Matrix(dict.fromkeys(corner, LOST)), Matrix(dict.fromkeys(corner, REPLY)))
    assert lines[1] == "  a → b icmp/4, udp/6"


@given(st.text())
def test_explanation_escapes_control_characters(text: str) -> None:
    """Control characters in names and addresses are shown escaped in an explanation."""
    assert printable(text).isprintable()
    cell = replace(CELL, source=text, target=text)
    seen = Matrix({cell: replace(LOST, code=text, detail=text)})
    promise = Matrix({cell: replace(REPLY, why=text)})
    assert all(line.isprintable() for line in explain(seen, promise))


def test_oracle_and_matrix_import_without_rich() -> None:
    """The oracle and the matrix do not import rich, which only drawings need."""
    script = "import sys, harness.model.oracle; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# --- origin ----------------------------------------------------------------------


def test_selected_and_merged_matrices_keep_the_origin_object() -> None:
    """Selected, restricted and merged matrices keep the origin object of their source.

    The origin object has no effect on equality.
    """
    here, there = object(), object()
    one = Matrix({CELL: KEPT}, origin=here)
    assert one.select(source="a").origin is here
    assert one.restrict([CELL]).origin is here
    assert one.merge(Matrix({TCP: KEPT}, origin=there)).origin is here
    assert Matrix({TCP: KEPT}).merge(one).origin is here
    assert Matrix({CELL: KEPT}).origin is None
    assert one == Matrix({CELL: KEPT}, origin=there)


def test_matrix_repr_shows_number_of_cells() -> None:
    """The repr of a matrix has only the number of cells, because explanations show the cells."""
    assert repr(lost(CELL, TCP)) == "<Matrix of 2 cells>"


# --- limits ----------------------------------------------------------------------


def test_explanation_counts_seventh_entry_in_its_last_line() -> None:
    """An explanation shows six entries, and its last line counts the others."""
    six, seven = (explain(lost(*peers(count)), promised(*peers(count))) for count in (6, 7))
    assert [line for line in six if " → " in line] == [
        f"  a → b{number} icmp over IPv4" for number in range(6)
    ]
    assert not six[-1].startswith("  and")
    assert seven[:-1] == ["7 of 7 cells are wrong", *six[1:]]
    assert seven[-1] == "  and 1 more, from a"


def test_last_line_of_explanation_names_sources_of_hidden_cells() -> None:
    """The last line of an explanation names each source of hidden cells once, in order.

    Control characters in the names are escaped.
    """
    cells = [CELL, *(replace(CELL, source=name) for name in ("c", "d\x1b"))]
    cells += [replace(cell, target="z") for cell in cells[1:]]
    *_, last = explain(lost(*cells), promised(*cells), limit=1)
    assert last == r"  and 4 more, from c, d\x1b"


# --- common values ---------------------------------------------------------------


def test_explanation_omits_uninformative_common_values() -> None:
    """An explanation omits common values if one cell is wrong or all cells are wrong.

    It also omits the value of an axis that has a single value.
    """
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


def test_explanation_says_every_cell_only_for_several_cells() -> None:
    """The explanation says "every cell" if two of two cells are wrong.

    It does not if one of one, or two of three, are wrong.
    """
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
    """If only some cells of an entry have a TTL, the entry shows the promise with the TTL.

    TCP cells have no TTL.
    """
    udp = replace(CELL, protocol=Protocol.UDP)
    expected = Matrix({TCP: replace(REPLY, ttl=None), CELL: REPLY, udp: replace(REPLY, ttl=None)})
    assert explain(lost(TCP, CELL, udp), expected)[1:3] == [
        "  a → b tcp, icmp, udp over IPv4",
        "    promised: reply, ttl 64, seen as a",
    ]


def test_explanation_has_an_entry_for_each_combination_of_promise_outcome_and_ttl() -> None:
    """Cells with different promises, outcomes or changed TTLs are in separate entries.

    A TTL that is wrong in only one direction makes no separate entry.
    """
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


# --- callback --------------------------------------------------------------------


def test_explanation_shows_lines_of_callback_below_its_entry() -> None:
    """The `tell` callback is called once, with all shown cells.

    Its lines for a cell are below the entry of that cell.
    """
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
