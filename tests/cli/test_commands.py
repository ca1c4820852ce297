"""Tests of the output and the error messages of the commands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.programs import environment, run

NETMODES = [sys.executable, "-m", "harness.cli.main"]


def test_requirements_lists_the_catalogue_in_order() -> None:
    """`netmodes requirements` prints a row for each requirement, in the order of the catalogue."""
    done = run([*NETMODES, "requirements"])
    ids = [words[0] for line in done.stdout.splitlines() if "MUST" in (words := line.split())]
    assert done.returncode == 0
    assert ids[:3] == ["NONE-1", "NONE-2", "NONE-3"]
    assert "BR-7" in ids


def test_requirements_command_shows_a_requirement_in_full() -> None:
    """`netmodes requirements ID` shows the requirement's sources and past defects, with links."""
    done = run([*NETMODES, "requirements", "HOST-2", "BR-9"])
    assert done.returncode == 0
    assert done.stdout.startswith("HOST-2 (MUST) ")
    assert "  known bug: moby#32639 <https://github.com/moby/moby/issues/32639>" in (done.stdout)
    assert "\nBR-9 (MUST) " in done.stdout


def test_unknown_requirement_is_refused_with_similar_ids() -> None:
    """The error for an unknown requirement suggests similar ids, and the exit code is 2."""
    done = run([*NETMODES, "requirements", "BR9"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "no requirement 'BR9': did you mean BR-9" in done.stderr


def test_unencodable_characters_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A character that the terminal's encoding lacks is replaced.

    The other text is shown.
    """
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    done = run([*NETMODES, "vendors"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout, "where a cell of the table is cut"


@pytest.mark.parametrize("command", ["doctor", "doctor --json", "vendors", "requirements BR-1"])
def test_full_disk_is_an_error_of_one_sentence(command: str) -> None:
    """If standard output is on a full disk, the error is one sentence and the exit code is 1."""
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
    assert done.stderr == ("netmodes: cannot write all output: No space left on device\n")


@pytest.mark.parametrize("command", [["doctor", "--json"], ["requirements"]], ids=" ".join)
def test_closed_pipe_causes_no_traceback(command: list[str]) -> None:
    """If the reader of a pipe, such as `head`, ends early, there is no traceback.

    The exit code is not 0.
    """
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [*NETMODES, *command], stdout=writer, stderr=subprocess.PIPE, env=environment()
    )
    os.close(writer)
    assert process.communicate()[1] == b""
    assert process.returncode == 1
