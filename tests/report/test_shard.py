"""Tests of shards, which divide the tests in the same way on every machine."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.report import merge
from harness.report.merge import BadShard
from harness.report.schema import Shard

IDS = st.lists(
    st.builds("f{}.py::test_{}".format, st.integers(0, 9), st.integers(0, 9)), unique=True
)
SECONDS = st.dictionaries(
    st.builds("f{}.py::test_{}".format, st.integers(0, 9), st.integers(0, 9)), st.floats(0, 100)
)


@settings(deadline=None)
@given(IDS, st.integers(1, 6), SECONDS, st.integers())
def test_each_file_is_in_one_shard_for_any_order(
    ids: list[str], of: int, seconds: dict[str, float], seed: int
) -> None:
    """Every test is in one shard together with its whole file, in whatever order tests come.

    The set-up of a file then runs once.
    """
    parts = merge.assign(ids, of, seconds)
    assert len({(merge.file_of(id_), part) for id_, part in parts.items()}) == len(
        {merge.file_of(id_) for id_ in ids}
    )
    assert parts.keys() == set(ids)
    assert set(parts.values()) <= set(range(1, of + 1))
    shuffled = random.Random(seed).sample(ids, len(ids))
    assert merge.assign(shuffled, of, seconds) == parts


@settings(deadline=None)
@given(IDS.filter(bool), st.integers(1, 4), SECONDS)
def test_shards_are_balanced_by_time(ids: list[str], of: int, seconds: dict[str, float]) -> None:
    """The slowest shard takes longer than the fastest by at most the time of one file."""
    known = {id_: seconds.get(id_, 1.0) for id_ in ids}
    parts = merge.assign(ids, of, known)
    loads = [sum(known[id_] for id_ in ids if parts[id_] == number) for number in range(1, of + 1)]
    files = {merge.file_of(id_) for id_ in ids}
    longest = max(sum(known[id_] for id_ in ids if merge.file_of(id_) == file) for file in files)
    assert max(loads) - min(loads) <= longest + 1e-6


def test_longest_files_are_assigned_first() -> None:
    """The longest files are assigned first, and the short ones balance the rest."""
    seconds = {"a.py::test": 1.0, "b.py::test": 1.0, "c.py::test": 1.0, "z.py::test": 3.0}
    parts = merge.assign(seconds, 2, seconds)
    assert parts == {"z.py::test": 1, "a.py::test": 2, "b.py::test": 2, "c.py::test": 2}


def test_unknown_test_counts_as_the_median() -> None:
    """A test without a recorded time counts as the median, so that a new file is not free."""
    seconds = {"a.py::test": 10.0, "b.py::test": 9.0, "c.py::test": 8.0}
    parts = merge.assign([*seconds, "new.py::test"], 3, seconds)
    assert parts == {"a.py::test": 1, "b.py::test": 2, "new.py::test": 3, "c.py::test": 2}


def test_new_file_moves_no_other_file_if_no_durations_are_recorded() -> None:
    """If no test durations are recorded, a new file leaves other files in their shards.

    The hash of a file's name determines its shard.
    """
    ids = [f"f{number}.py::test" for number in range(20)]
    before = merge.assign(ids, 3, {})
    after = merge.assign([*ids, "new.py::test"], 3, {})
    assert {id_: after[id_] for id_ in ids} == before
    assert set(before.values()) == {1, 2, 3}


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b", "\u0661/\u0662"])
def test_malformed_shard_is_refused(text: str) -> None:
    """The error for a malformed shard option shows the correct form."""
    assert merge.parse("2/5") == Shard(number=2, of=5)
    with pytest.raises(BadShard, match="K/N"):
        merge.parse(text)
