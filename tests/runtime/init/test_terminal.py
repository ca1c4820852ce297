"""Tests of the caller's side of a container's terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from runtime.engine import Engine
from tests.runtime.conftest import FOR_EVER
from tests.support.programs import WITHIN, environment

_MUCH = 1_000_000
"""Bytes: more than the kernel buffers on the way to a terminal and back."""


def test_unread_terminal_input_does_not_block_output(engine: Engine, root: Path) -> None:
    """Unread terminal input never blocks the program's output.

    A program may read no input before its output is taken.
    """
    engine.run("base", FOR_EVER, name="web", network="none")
    script = f"stty raw -echo; echo ready; exec head -c {_MUCH}"
    with subprocess.Popen(
        [sys.executable, "-m", "runtime", "exec", "-it", "web", "sh", "-c", script],
        env=environment(MYDOCKER_ROOT=str(root)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == b"ready\n"
            typed = os.urandom(_MUCH)
            shown, _ = program.communicate(typed, timeout=WITHIN)
        finally:
            program.kill()
    assert shown == typed
