"""The command line: what it tells, and how it refuses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.programs import environment, run

NETMODES = [sys.executable, "-m", "harness.cli.main"]


def test_the_catalogue_is_listed_in_its_order() -> None:
    """`netmodes requirements` has a row for each requirement."""
    done = run([*NETMODES, "requirements"])
    ids = [words[0] for line in done.stdout.splitlines() if "MUST" in (words := line.split())]
    assert done.returncode == 0
    assert ids[:3] == ["NONE-1", "NONE-2", "NONE-3"]
    assert "BR-7" in ids


def test_a_requirement_is_told_in_full() -> None:
    """With ids, sources and past faults are told too, with where to read them up."""
    done = run([*NETMODES, "requirements", "HOST-2", "BR-9"])
    assert done.returncode == 0
    assert done.stdout.startswith("HOST-2 (MUST) ")
    assert "  would have caught: moby#32639 <https://github.com/moby/moby/issues/32639>" in (
        done.stdout
    )
    assert "\nBR-9 (MUST) " in done.stdout


def test_an_unknown_requirement_is_refused_with_its_neighbours() -> None:
    """A mistyped id gets exit code 2 and the ids that it may have meant."""
    done = run([*NETMODES, "requirements", "BR9"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "no requirement 'BR9': did you mean BR-9" in done.stderr


def test_what_cannot_be_encoded_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal without the character is shown the rest."""
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    done = run([*NETMODES, "vendors"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout, "where a cell of the table is cut"


@pytest.mark.parametrize("command", ["doctor", "doctor --json", "vendors", "requirements BR-1"])
def test_what_cannot_be_written_is_told_in_a_sentence(command: str) -> None:
    """And the command has not succeeded."""
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run(
            [*NETMODES, *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == ("netmodes: not all of it could be written: No space left on device\n")


@pytest.mark.parametrize("command", [["doctor", "--json"], ["requirements"]], ids=" ".join)
def test_who_reads_no_further_is_not_told_of_it(command: list[str]) -> None:
    """As `head` does: no traceback, and no success either."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [*NETMODES, *command], stdout=writer, stderr=subprocess.PIPE, env=environment()
    )
    os.close(writer)
    assert process.communicate()[1] == b""
    assert process.returncode == 1
