"""Fixture of the small project of the plugin's tests."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import project as plain_project

__all__ = ["plain_project", "project"]


@pytest.fixture
def project(plain_project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return the project, with its runtime importable in this process too."""
    monkeypatch.syspath_prepend(str(plain_project.path / "site"))
    return plain_project
