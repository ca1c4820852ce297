"""Fixtures for tests of container files: a container, and a directory of the host.

Files that tests remove in a container have names that exist on no host. If a command ran on the
host by mistake, nothing would be lost.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.init.process import Stdio
from runtime.records import ContainerRecord

SLEEP = ["sleep", "1000000"]


@pytest.fixture
def here() -> Iterator[Path]:
    """Make a directory on the host."""
    made = Path(tempfile.mkdtemp(dir="/run", prefix="here-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=["running", "ended"])
def web(engine: Engine, request: pytest.FixtureRequest) -> ContainerRecord:
    """Start a container called web; the test runs with it running and with it stopped."""
    made = engine.run("base", SLEEP, name="web", network="none")
    sh(engine, "mkdir -p /srv/a/b; echo one > /srv/a/one; echo two > /srv/a/b/two")
    return made if request.param == "running" else engine.stop("web", timeout=0)


def run_attached(
    engine: Engine, command: list[str], output: int, *, name: str = "", lost: int = -1
) -> ContainerRecord:
    """Start a container without input whose two output streams are the descriptor `output`."""
    with open(os.devnull, encoding="ascii") as stdin:
        stdio = Stdio(stdin.fileno(), output, output)
        return engine.run("base", command, name=name, network="none", stdio=stdio, lost=lost)


def sh(engine: Engine, script: str) -> str:
    """Return the output of a shell script in the running container web."""
    done = engine.exec("web", ["sh", "-c", script])
    assert done.exit_code == 0, done.stderr
    return done.stdout.decode()


def inside(engine: Engine, script: str) -> str:
    """Start the container web, and return the output of a shell script in it."""
    engine.start("web")
    return sh(engine, script)
