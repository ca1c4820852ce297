"""How the program begins, and how it complains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.cli.base import print_error
from runtime.engine import Engine
from tests.support.programs import WITHIN, environment


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("how", ["run --rm -i --net none base", "exec -i web"])
def test_a_closed_stream_leads_nowhere(engine: Engine, root: Path, how: str, closed: str) -> None:
    """Not to what mydocker opens next, and the command ends as it should."""
    engine.run("base", ["sleep", "1000000"], name="web", network="none")
    script = f'"$0" -m runtime {how} sh -c "readlink /proc/self/fd/0; exit 3" {closed}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable],
        env=environment(MYDOCKER_ROOT=str(root)),
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN,
    )
    assert (done.returncode, done.stderr) == (3, "")
    if closed == "<&-":
        assert done.stdout == "/dev/null\n"


def ended(root: Path, words: str, redirection: str = "", **env: str) -> tuple[int, str, str]:
    """How a command ends, and what it prints."""
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m runtime {words} {redirection}', sys.executable],
        env=environment(MYDOCKER_ROOT=str(root), **env),
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN,
    )
    return done.returncode, done.stdout, done.stderr


def test_what_cannot_be_encoded_is_replaced(engine: Engine, root: Path) -> None:
    """A list cuts long commands with a character that not every terminal has."""
    engine.run("base", ["sleep", "1000000", "a long word", "and another"], network="none")
    code, told, complaint = ended(root, "ps -a", PYTHONIOENCODING="latin-1")
    assert (code, complaint) == (0, "")
    assert '"sleep 1000000 ' in told
    assert '?"' in told


@pytest.mark.parametrize("words", ["ps -a", "inspect web", "wait web", "completion bash"])
def test_what_cannot_be_written_is_told(engine: Engine, root: Path, words: str) -> None:
    """In one sentence, once."""
    engine.run("base", ["true"], name="web", network="none")
    code, told, complaint = ended(root, words, "> /dev/full")
    assert (code, told) == (1, "")
    assert complaint.splitlines() == [
        "mydocker: tell what was asked for: No space left on device",
        "  likely cause: the disk is full that it goes to",
    ]


def test_a_refusal_of_the_kernels_is_told_in_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the number of the error, and with the file that it is about."""
    print_error(PermissionError(13, "Permission denied", "/x"))
    print_error(PermissionError(13, "add an address: Permission denied"))
    assert capsys.readouterr().err.splitlines() == [
        "mydocker: Permission denied: /x",
        "mydocker: add an address: Permission denied",
    ]
