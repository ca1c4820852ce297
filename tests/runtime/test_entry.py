"""How the program begins, and how it complains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.console import complain
from runtime.engine import Engine
from tests.programs import WITHIN, environment


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


def test_a_refusal_of_the_kernels_is_told_in_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the number of the error, and with the file that it is about."""
    complain(PermissionError(13, "Permission denied", "/x"))
    complain(PermissionError(13, "add an address: Permission denied"))
    assert capsys.readouterr().err.splitlines() == [
        "mydocker: Permission denied: /x",
        "mydocker: add an address: Permission denied",
    ]
