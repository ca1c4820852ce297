"""What the property suites share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import profiles

if TYPE_CHECKING:
    import hypothesis


@pytest.fixture(scope="session")
def profile(request: pytest.FixtureRequest) -> hypothesis.settings:
    """How long to look, as `--profile` says."""
    return profiles.chosen(request.config)


@pytest.fixture
def plans_folder(request: pytest.FixtureRequest) -> Path:
    """Where plans of failures are written, to be built again."""
    assert request.config.cache is not None
    return request.config.cache.mkdir("netmodes-plans")
