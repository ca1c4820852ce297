"""Fixture that makes the small project used by the plugin's tests."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import project as plain_project

__all__ = ["plain_project", "project"]


@pytest.fixture
def project(plain_project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return the project; its runtime adapter can also be imported in this process."""
    monkeypatch.syspath_prepend(str(plain_project.path / "site"))
    return plain_project
