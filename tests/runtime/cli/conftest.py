"""Fixtures of the tests of the mydocker command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from runtime.cli import main
from runtime.engine import Engine
from tests.support.programs import WITHIN, environment

MYDOCKER: Final = [sys.executable, "-m", "runtime"]


Mydocker = Callable[..., "subprocess.CompletedProcess[Any]"]
"""Runs a command as a process."""
Command = Callable[..., str]
"""Runs a command in this process: its output, or `!`, exit code and error."""


@pytest.fixture
def env(engine: Engine, root: Path) -> dict[str, str]:
    """Return environment variables with the checkout's path and this test's state directory."""
    del engine  # its fixture cleans up
    return environment(MYDOCKER_ROOT=str(root))


@pytest.fixture
def mydocker(env: dict[str, str]) -> Mydocker:
    """Return a function that runs mydocker as a process; `text` decodes its output."""

    def run(
        *words: str, stdin: str | bytes = "", text: bool = True
    ) -> subprocess.CompletedProcess[Any]:
        done: subprocess.CompletedProcess[Any] = subprocess.run(
            [*MYDOCKER, *words],
            env=env,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            check=False,
            timeout=WITHIN,
        )
        done.stdout = done.stdout.decode() if text else done.stdout
        done.stderr = done.stderr.decode()
        return done

    return run


@pytest.fixture
def command(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Return a function that runs mydocker in this process."""
    monkeypatch.setenv("MYDOCKER_ROOT", env["MYDOCKER_ROOT"])

    def run(*words: str) -> str:
        capfd.readouterr()
        code = main.main(words)
        captured = capfd.readouterr()
        return f"!{code} {captured.err}" if code else captured.out

    return run
