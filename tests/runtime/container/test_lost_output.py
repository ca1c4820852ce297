"""Tests of lost output, which a command in the foreground reports immediately."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import OutputError
from tests.runtime.container.container_files import run_attached
from tests.runtime.support.inspection import until
from tests.support.programs import WITHIN, environment

MYDOCKER = f"{shlex.quote(sys.executable)} -m runtime"


def shell(root: Path, script: str) -> tuple[str, str]:
    """Return stdout and stderr of a shell script in which `$mydocker` is the command."""
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment(MYDOCKER_ROOT=str(root), mydocker=MYDOCKER),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=WITHIN,
    )
    return done.stdout, done.stderr


def test_closed_stdout_ends_the_run_command_with_an_error(engine: Engine, root: Path) -> None:
    """`run … | head` exits with 1 and reports the reason; the container keeps running."""
    script = "$mydocker run --name web base yes | head -n 1; echo ${PIPESTATUS[0]}"
    out, err = shell(root, script)
    assert out == "y\n1\n"
    assert err.splitlines() == [
        "mydocker: cannot show the stdout of container 'web': Broken pipe",
        "  likely cause: the process that read the output has exited",
        "  try: `mydocker logs -f web`, which shows all output",
    ]
    assert engine.inspect("web").running


@pytest.mark.parametrize("redirected", [">/dev/full", ">&2 2>/dev/full"])
@pytest.mark.parametrize("after", ["", "; sleep 1000", "; exit 7"])
def test_run_with_unwritable_output_exits_with_1(
    engine: Engine, root: Path, redirected: str, after: str
) -> None:
    """`run` exits with 1 if it cannot write one of its output streams.

    This holds before and after the command's end, and for any exit code.
    """
    words = "echo out; echo err >&2" + after
    script = f"$mydocker run --name web base sh -c '{words}' {redirected}; echo $?"
    if redirected.startswith(">&2"):
        script = script.replace(redirected, "3>&2 2>/dev/full 1>&3")
        out, err = shell(root, script)
        assert (out, err) == ("1\n", "out\n")  # stderr is lost, and so is a message about it
    else:
        out, err = shell(root, script)
        assert out == "1\n"
        assert "show the stdout of container 'web': No space left on device" in err
    until(lambda: engine.inspect("web").running is ("sleep" in after), "all others have ended")


def test_auto_remove_container_is_removed_after_lost_output(engine: Engine, root: Path) -> None:
    """A container with --rm is removed after its output was lost.

    Only the message is left. It says that the logs are kept until the container ends.
    """
    out, err = shell(root, "$mydocker run --rm --name web base echo hi >/dev/full; echo $?")
    assert out == "1\n"
    assert err.endswith(
        "`mydocker logs -f web`, which shows all output until the container stops (--rm)\n"
    )
    until(lambda: not engine.containers(), "it has ended, and is removed")


def test_run_with_terminal_reports_lost_output(engine: Engine, root: Path) -> None:
    """`run -t`, which writes the output itself, reports lost output too."""
    out, err = shell(root, "$mydocker run -t base yes | head -n 1; echo ${PIPESTATUS[0]}")
    assert out.split() == ["y", "1"]
    assert "show the output of the terminal: Broken pipe" in err


def test_wait_raises_error_for_lost_output(engine: Engine) -> None:
    """`wait` with `lost` raises the error, also after the container's end was recorded."""
    lost, reporting = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    found = run_attached(engine, ["echo", "hi"], full, lost=reporting)
    os.close(reporting)
    os.close(full)
    until(lambda: not engine.inspect(found.id).running, "the container has ended")
    with pytest.raises(OutputError) as caught:
        engine.wait(found.id, lost=lost)
    assert caught.value.happened == os.strerror(errno.ENOSPC)
    assert engine.wait(found.id) == 0
    os.close(lost)


@pytest.mark.parametrize("blocking", [True, False])
def test_slow_reader_gets_all_output(engine: Engine, *, blocking: bool) -> None:
    """A slow reader gets all output, whether or not pid 1's end of the pipe blocks."""
    out, writer = os.pipe()
    os.set_blocking(writer, blocking)
    lost, reporting = os.pipe()
    found = run_attached(engine, ["seq", "40000"], writer, lost=reporting)
    os.close(writer)
    os.close(reporting)
    # The command has ended, and only pid 1 still holds its last output.
    engine.exec(found.id, ["sleep", "0.1"])
    with open(out, "rb") as file:
        assert file.read() == b"".join(b"%d\n" % number for number in range(1, 40001))
    assert engine.wait(found.id, lost=lost) == 0
    os.close(lost)
