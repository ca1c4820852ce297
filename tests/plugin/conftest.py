"""Fixture that makes a small project that uses netmodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.programs import ROOT

ACME = """
from harness.adapters.protocol import Feature

class Acme:
    features = frozenset({Feature.BRIDGE})
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a project with its own adapter `acme`, which declares bridge networks only.

    The runtime is never started: the plugin only reads the adapter's features.
    """
    site = Path(pytester.path, "site")
    paths = (str(site), str(pytester.path), str(ROOT), os.environ.get("PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    info = site / "acme-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[netmodes.adapters]\nacme = acme:Acme\n")
    (site / "acme.py").write_text(ACME)
    pytester.makepyprojecttoml(
        """
        [tool.pytest.ini_options]
        netmodes = true
        testpaths = ["."]
        addopts = "-p harness.plugin --runtime acme --strict-markers"
        # A run in this process finds an installed plugin imported already.
        filterwarnings = ["error", "ignore::pytest.PytestAssertRewriteWarning"]
        truncation_limit_lines = 0
        truncation_limit_chars = 0
        """
    )
    return pytester
