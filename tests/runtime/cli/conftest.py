"""Fixtures of the tests of the mydocker command."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.engine import Engine
from tests.support.programs import environment


@pytest.fixture
def env(engine: Engine, root: Path) -> dict[str, str]:
    """Return an environment with the checkout and the state of this test."""
    del engine  # its fixture cleans up
    return environment(MYDOCKER_ROOT=str(root))
