"""What the property suites share."""

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
    """How long to look, as `--profile` says."""
    return profiles.chosen(request.config)


Telling = Callable[..., AbstractContextManager[Steps]]


@pytest.fixture
def steps(request: pytest.FixtureRequest, profile: hypothesis.settings) -> Telling:
    """Tells how far a property is: `with steps("any history", steps=True) as told`."""
    return partial(progress_of, request.config, settings=profile)


@pytest.fixture
def plans_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the plans of failures, to be built again."""
    cache = getattr(request.config, "cache", None)  # absent with `-p no:cacheprovider`
    if cache is None:
        return tmp_path_factory.mktemp("netmodes-plans")
    folder: Path = cache.mkdir("netmodes-plans")
    return folder
