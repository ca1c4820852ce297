"""Fixtures of the property-based suites."""

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
    """Return the Hypothesis settings that the option `--profile` chooses."""
    return profiles.chosen(request.config)


Telling = Callable[..., AbstractContextManager[Steps]]


@pytest.fixture
def steps(request: pytest.FixtureRequest, profile: hypothesis.settings) -> Telling:
    """Return a function that opens a context manager, which reports a property's progress."""
    return partial(progress_of, request.config, settings=profile)


@pytest.fixture
def plans_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for the plans of failed examples, from which a test can be repeated.

    The folder is temporary if pytest has no cache, as with `-p no:cacheprovider`.
    """
    cache = getattr(request.config, "cache", None)
    return cache.mkdir("netmodes-plans") if cache else tmp_path_factory.mktemp("netmodes-plans")
