"""What the property suites share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.testbench import profiles
from harness.testbench.steps import Steps, telling

if TYPE_CHECKING:
    import hypothesis


@pytest.fixture(scope="session")
def profile(request: pytest.FixtureRequest) -> hypothesis.settings:
    """How long to look, as `--profile` says."""
    return profiles.chosen(request.config)


Telling = Callable[..., AbstractContextManager[Steps]]


@pytest.fixture
def steps(request: pytest.FixtureRequest, profile: hypothesis.settings) -> Telling:
    """Tells how far a property is: `with steps("any history", steps=True) as told`."""
    return partial(telling, request.config, settings=profile)


@pytest.fixture
def plans_folder(request: pytest.FixtureRequest) -> Path:
    """Where plans of failures are written, to be built again."""
    assert request.config.cache is not None
    return request.config.cache.mkdir("netmodes-plans")
