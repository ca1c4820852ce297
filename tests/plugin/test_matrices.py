"""Tests of the matrices that a run prints: wrong cells of a failure, and the final table."""

from __future__ import annotations

import pytest

MATRICES = """
import pytest
from harness.plugin.marks import requirement
from harness.model.matrix import Matrix
from harness.model.plan import Cell, Observation, Outcome, Promise, Protocol
from harness.report.recorder import RECORDER

CELLS = [Cell("a", f"target{n}", Protocol.UDP, 4) for n in range(20)]
PROMISE = Promise(Outcome.REPLY, ttl=64, requirement="BR-4", why="peers")
PROMISED = Matrix({cell: PROMISE for cell in CELLS})

def seen(wrong):
    replies = {cell: Observation(Outcome.REPLY, ttl=64) for cell in CELLS}
    return Matrix(replies | {cell: Observation(Outcome.DROPPED) for cell in CELLS[:wrong]})

@requirement("BR-4")
@pytest.mark.parametrize("wrong", [12, 0])
def test_cells(request, wrong):
    request.config.stash[RECORDER].add("the cast", PROMISED, seen(wrong))
    assert seen(wrong) == PROMISED
"""


def test_failure_shows_only_wrong_cells(project: pytest.Pytester) -> None:
    """A failure shows only wrong cells, at most six, each with its promise and requirement."""
    project.makepyfile(MATRICES)
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *12 of 20 cells are wrong",
            "E * a → target0 udp over IPv4",
            "E * promised: reply, ttl 64",
            "E * observed: dropped",
            "E * BR-4: peers",
            "E * and 6 more, from a",
        ]
    )
    text = result.stdout.str()
    assert "truncated" not in text
    assert "target15 udp" not in text


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=" ".join)
def test_matrix_is_printed_once_at_the_end(project: pytest.Pytester, workers: list[str]) -> None:
    """The matrix is printed once for all workers.

    A cell that is wrong in one test is wrong in the matrix.
    """
    project.makepyfile(MATRICES)
    result = project.runpytest_subprocess(*workers)
    result.stdout.fnmatch_lines(
        ["*acme: the cast*", "*20 cells, 8 as promised, 12 wrong*", "*acme: requirements*"]
    )
    assert result.stdout.str().count("acme: the cast") == 1
