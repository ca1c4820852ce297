"""Fixtures of the property suites."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.plugin.progress import Steps, progress_of
from harness.testbench import profiles

if TYPE_CHECKING:
    import hypothesis


@pytest.fixture(scope="session")
def profile(request: pytest.FixtureRequest) -> hypothesis.settings:
    """Return the settings of `--profile`."""
    return profiles.chosen(request.config)


Telling = Callable[..., AbstractContextManager[Steps]]


@pytest.fixture
def steps(request: pytest.FixtureRequest, profile: hypothesis.settings) -> Telling:
    """Return a function whose context manager reports the progress of a property."""
    return partial(progress_of, request.config, settings=profile)


@pytest.fixture
def plans_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for plans of failures, from which a scene can be rebuilt.

    It is temporary where pytest has no cache, as with `-p no:cacheprovider`.
    """
    cache = getattr(request.config, "cache", None)
    return cache.mkdir("netmodes-plans") if cache else tmp_path_factory.mktemp("netmodes-plans")
