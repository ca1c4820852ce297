"""Fixture of a small project with its own tests and faults."""

from __future__ import annotations

import os

import pytest

from tests.support.programs import ROOT


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Create a project whose tests are conformance tests of mydocker."""
    paths = (str(pytester.path), str(ROOT), os.environ.get("PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyprojecttoml(
        """
        [tool.pytest.ini_options]
        netmodes = true
        testpaths = ["."]
        addopts = "-p harness.plugin --strict-markers"
        filterwarnings = ["error"]
        """
    )
    return pytester
