"""Tests of the start of the program and of its error messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.cli.base import print_error
from runtime.engine import Engine
from tests.support.programs import WITHIN, environment


def run(root: Path, words: str, redirection: str = "", **env: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command."""
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m runtime {words} {redirection}', sys.executable],
        env=environment(MYDOCKER_ROOT=str(root), **env),
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("how", ["run --rm -i --net none base", "exec -i web"])
def test_closed_standard_stream_is_replaced_by_dev_null(
    engine: Engine, root: Path, how: str, closed: str
) -> None:
    """/dev/null replaces a closed standard stream, so no file of mydocker gets its number.

    The exit code is the command's.
    """
    engine.run("base", ["sleep", "1000000"], name="web", network="none")
    code, output, errors = run(root, f'{how} sh -c "readlink /proc/self/fd/0; exit 3"', closed)
    assert (code, errors) == (3, "")
    if closed == "<&-":
        assert output == "/dev/null\n"


def test_character_missing_in_the_encoding_is_replaced(engine: Engine, root: Path) -> None:
    """A command replaces a character that the output's encoding does not have.

    For example, Latin-1 does not have the ellipsis with which `ps` shortens long commands.
    """
    engine.run("base", ["sleep", "1000000", "a long word", "and another"], network="none")
    code, output, errors = run(root, "ps -a", PYTHONIOENCODING="latin-1")
    assert (code, errors) == (0, "")
    assert '"sleep 1000000 ' in output
    assert '?"' in output


@pytest.mark.parametrize("words", ["ps -a", "inspect web", "wait web", "completion bash"])
def test_full_disk_at_standard_output_is_reported_once(
    engine: Engine, root: Path, words: str
) -> None:
    """A full disk at standard output is reported once, with the likely cause."""
    engine.run("base", ["true"], name="web", network="none")
    code, output, errors = run(root, words, "> /dev/full")
    assert (code, output) == (1, "")
    assert errors.splitlines() == [
        "mydocker: cannot write to standard output: No space left on device",
        "  likely cause: the disk with the output file is full",
    ]


def test_os_error_is_printed_without_its_errno(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of the operating system is printed with its file and without its errno."""
    print_error(PermissionError(13, "Permission denied", "/x"))
    print_error(PermissionError(13, "add an address: Permission denied"))
    assert capsys.readouterr().err.splitlines() == [
        "mydocker: Permission denied: /x",
        "mydocker: add an address: Permission denied",
    ]
