"""The small project that runs are tried on, as the plugin's own tests have it."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import project as plain_project

__all__ = ["plain_project", "project"]


@pytest.fixture
def project(plain_project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The project of the plugin's tests, whose runtime this process finds too."""
    monkeypatch.syspath_prepend(str(plain_project.path / "site"))
    return plain_project
