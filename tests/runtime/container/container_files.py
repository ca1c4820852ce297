"""Containers whose files are looked into and changed, and a directory of the machine's.

What is removed inside has a name that no machine has: were a command ever to run
outside, nothing would be lost.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.records import ContainerRecord

SLEEP = ["sleep", "1000000"]


@pytest.fixture
def here() -> Iterator[Path]:
    """A directory of the machine's."""
    made = Path(tempfile.mkdtemp(dir="/run", prefix="here-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=["running", "ended"])
def web(engine: Engine, request: pytest.FixtureRequest) -> ContainerRecord:
    """A container called web, while it runs and after it has ended."""
    made = engine.run("base", SLEEP, name="web", network="none")
    sh(engine, "mkdir -p /srv/a/b; echo one > /srv/a/one; echo two > /srv/a/b/two")
    return made if request.param == "running" else engine.stop("web", timeout=0)


def sh(engine: Engine, script: str) -> str:
    """What a shell says in web, which runs."""
    done = engine.exec("web", ["sh", "-c", script])
    assert done.exit_code == 0, done.stderr
    return done.stdout.decode()


def inside(engine: Engine, script: str) -> str:
    """What a shell says in web, which is started for it."""
    engine.start("web")
    return sh(engine, script)
