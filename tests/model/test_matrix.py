"""The matrix: when two are equal, and what an assertion says when they are not."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.model.matrix import Matrix, MatrixConflict, diff, explain, printable
from harness.model.plan import Cell, Observation, Outcome, Promise, Protocol
from tests.model.reference import CELL, KEPT, LOST, PROMISED, REPLY, changed, keeping
from tests.model.strategies import cells, kept, matrices, observations, promises

# --- equality ----------------------------------------------------------------


@given(st.data(), matrices(promises()))
def test_matrices_are_equal_if_all_promises_are_kept(
    data: st.DataObject, expected: Matrix[Promise]
) -> None:
    """A matrix whose every observation keeps its promise equals the promised one, both ways."""
    seen = Matrix({cell: data.draw(kept(promise)) for cell, promise in expected.items()})
    assert seen == expected
    assert expected == seen
    assert explain(seen, expected) == []


@given(matrices(promises()), matrices(observations()))
def test_matrix_equality_means_same_cells_and_kept_promises(
    expected: Matrix[Promise], seen: Matrix[Observation]
) -> None:
    """Equality is nothing but: the same cells, and each promise admits its observation."""
    held = set(expected) == set(seen) and all(expected[cell].admits(seen[cell]) for cell in seen)
    assert (seen == expected) == (expected == seen) == held
    assert (seen != expected) != held


@given(matrices(promises()).filter(len))
def test_promised_cell_without_observation_is_a_difference(expected: Matrix[Promise]) -> None:
    """Leaving out a single cell makes the matrices unequal, and the cell is named."""
    seen = keeping(expected)
    assert seen == expected
    *rest, missing = seen
    assert seen.restrict(rest) != expected
    assert [difference.cell for difference in diff(seen.restrict(rest), expected)] == [missing]


@given(matrices(promises()), cells())
def test_observed_cell_without_promise_is_a_difference(
    expected: Matrix[Promise], cell: Cell
) -> None:
    """A cell beyond those that were promised makes the matrices unequal."""
    expected = expected.restrict(set(expected) - {cell})
    seen = keeping(expected).merge(Matrix({cell: KEPT}))
    assert [difference.cell for difference in diff(expected, seen)] == [cell]


@given(matrices(observations()), matrices(observations()))
def test_observed_matrices_with_equal_entries_are_equal(
    one: Matrix[Observation], other: Matrix[Observation]
) -> None:
    """Among matrices of a kind equality is that of dictionaries."""
    assert one == Matrix(dict(one))
    assert (one == other) == (dict(one) == dict(other))


def test_matrix_differs_from_dict_and_is_unhashable() -> None:
    """A matrix is no dictionary, and has no hash, because an equal one could differ."""
    assert Matrix({CELL: KEPT}) != {CELL: KEPT}
    with pytest.raises(TypeError, match="unhashable"):
        hash(Matrix[Promise]())


def test_pickled_matrix_keeps_cells_and_order() -> None:
    """Pickling keeps every cell, in order."""
    again = pickle.loads(pickle.dumps(PROMISED))
    assert again == PROMISED
    assert list(again) == list(PROMISED)


# --- algebra -----------------------------------------------------------------


@given(matrices(promises()), st.sampled_from(["source", "target", "protocol", "family"]))
def test_selections_along_an_axis_partition_the_matrix(matrix: Matrix[Promise], axis: str) -> None:
    """Every cell is in the selection by its own value, and merging them all restores the whole."""
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
    """All four properties together leave one cell, or none."""
    found = matrix.select(
        source=cell.source, target=cell.target, protocol=cell.protocol, family=cell.family
    )
    assert found == matrix.restrict([cell])
    assert len(found) == (cell in matrix)


@given(matrices(promises()), st.frozensets(cells()), st.frozensets(cells()))
def test_repeated_restrict_of_matrix_intersects_cells(
    matrix: Matrix[Promise], some: frozenset[Cell], others: frozenset[Cell]
) -> None:
    """Restricting twice is restricting to what both have, and restricting to all is nothing."""
    assert matrix.restrict(some).restrict(others) == matrix.restrict(some & others)
    assert matrix.restrict(matrix) == matrix
    assert set(matrix.restrict(some)) == set(matrix) & some


@given(matrices(promises()), st.frozensets(cells()), st.frozensets(cells()))
def test_merge_of_matrix_parts_equals_restrict_to_their_union(
    matrix: Matrix[Promise], some: frozenset[Cell], others: frozenset[Cell]
) -> None:
    """Parts of one matrix never conflict, in whatever order they are merged."""
    one, other = matrix.restrict(some), matrix.restrict(others)
    assert one.merge(other) == other.merge(one) == matrix.restrict(some | others)
    assert one.merge(one) == one
    assert one.merge(Matrix()) == one


def test_merge_of_conflicting_matrices_names_the_cell() -> None:
    """Matrices with different entries for a cell are not merged."""
    with pytest.raises(MatrixConflict, match=r"a → b icmp/4: reply, .* here, dropped there"):
        Matrix({CELL: KEPT}).merge(Matrix({CELL: LOST}))


@given(matrices(promises()), matrices(observations()))
def test_diff_follows_order_of_promised_matrix(
    expected: Matrix[Promise], seen: Matrix[Observation]
) -> None:
    """The promised matrix's order rules, whichever side it is on; strangers come last."""
    order = list(dict.fromkeys([*expected, *seen]))
    for differences in (diff(expected, seen), diff(seen, expected)):
        where = [order.index(difference.cell) for difference in differences]
        if expected:
            assert where == sorted(where)
        assert all(d.promise == expected.get(d.cell) for d in differences)
        assert all(d.observation == seen.get(d.cell) for d in differences)


# --- in words ----------------------------------------------------------------


def test_explanation_shows_promise_observation_requirement_and_reason() -> None:
    """One wrong pair reads as one entry that explains itself, and right cells are not shown."""
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
    """The promised matrix may stand on either side of `==`."""
    seen = changed(keeping(PROMISED), target="ns1")
    assert explain(seen, PROMISED) == explain(PROMISED, seen)


@given(matrices(promises(), max_size=30), matrices(observations(), max_size=30))
@example(
    Matrix({CELL: Promise(Outcome.REPLY, requirement="BR-4", why="→ ")}),
    Matrix({CELL: LOST}),
)  # a reason with the arrow of an entry
def test_explanation_has_at_most_six_entries_and_counts_the_rest(
    expected: Matrix[Promise], seen: Matrix[Observation]
) -> None:
    """Every wrong cell is either in one of at most six entries or counted as one more."""
    lines = explain(seen, expected)
    wrong = diff(seen, expected)
    # A line of an entry's details stands further in, and may have an arrow of its own.
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
    """How many cells the first line of an entry stands for."""
    channels = entry.split(" → ")[1].split(" ", 1)[1]
    protocols, over, families = channels.partition(" over ")
    return len(protocols.split(", ")) * (len(families.split(" and ")) if over else 1)


def test_explanation_names_axis_value_that_fails_completely() -> None:
    """The explanation starts with a source, target, protocol or family that fails as a whole."""
    lines = explain(changed(keeping(PROMISED), family=6), PROMISED)
    assert lines[1:3] == ["all of them over IPv6", "every cell over IPv6"]
    lines = explain(changed(keeping(PROMISED), target="internet", protocol=Protocol.UDP), PROMISED)
    assert lines[1] == "all of them to internet, by udp"
    assert not any(line.startswith("every cell") for line in lines)
    lines = explain(changed(keeping(PROMISED), source="container01"), PROMISED)
    assert lines[1:3] == ["all of them from container01", "every cell from container01"]
    assert lines[-1].startswith("  and ")
    assert lines[-1].endswith(" more, from container01")


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
    """Two matrices of a kind are told apart as left and right."""
    assert explain(Matrix({CELL: KEPT}), Matrix({CELL: LOST})) == [
        "1 of 1 cells are wrong",
        "  a → b icmp over IPv4",
        "    left: reply, ttl 64, seen as a",
        "    right: dropped",
    ]


def test_explanation_groups_cells_with_equal_failure() -> None:
    """A wrong TTL separates entries; a correct or unknown TTL does not."""
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
    """Cells are listed one by one if protocols and families do not multiply out."""
    corner = [CELL, Cell("a", "b", Protocol.UDP, 6)]
    lines = explain(Matrix(dict.fromkeys(corner, LOST)), Matrix(dict.fromkeys(corner, REPLY)))
    assert lines[1] == "  a → b icmp/4, udp/6"


def test_explanation_shows_detail_of_the_probe() -> None:
    """The detail from the probe is shown beside the outcome of a cell."""
    seen = Matrix({CELL: replace(LOST, detail="3 probes, world quiet after 2 ms")})
    assert "    observed: dropped (3 probes, world quiet after 2 ms)" in explain(
        seen, Matrix({CELL: REPLY})
    )


@given(st.text())
def test_explanation_escapes_control_characters(text: str) -> None:
    """Names and addresses are shown with every control character written out."""
    assert printable(text).isprintable()
    cell = replace(CELL, source=text, target=text)
    seen = Matrix({cell: replace(LOST, code=text, detail=text)})
    promise = Matrix({cell: replace(REPLY, why=text)})
    assert all(line.isprintable() for line in explain(seen, promise))


def test_oracle_and_matrix_import_without_rich() -> None:
    """Only a picture needs rich: importing the oracle and the matrix does not load it."""
    script = "import sys, harness.model.oracle; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
