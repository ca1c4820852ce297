"""Runs of versions that the suites' expectation files do not cover."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report.expectations import uncovered_version
from tests.report.projects import run

FILE = """
[[deviation]]
runtime = "{0}"
versions = ">=5.4,<5.5"
test = "a"
reason = "known"
[[deviation]]
runtime = "{0}"
versions = ">=5.6,<5.7"
test = "b"
reason = "known"
"""


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Return expectation files: podman's for two versions, and another for all versions."""
    (tmp_path / "podman.toml").write_text(FILE.format("podman"))
    (tmp_path / "acme.toml").write_text(
        '[[deviation]]\nruntime = "acme"\ntest = "a"\nreason = "b"\n'
    )
    return tmp_path


@pytest.mark.parametrize(
    ("name", "version", "reported"),
    [
        ("podman", "4.9.3", True),
        ("podman", "5.5.0", True),
        ("podman", "6.0.0~rc1-1", True),
        ("podman@/opt/podman-4", "5.7", True),
        ("podman", "5.4.2", False),
        ("podman", "5.6.1-rc1", False),
        ("podman", None, False),
        ("acme", "1", False),
        ("another", "1", False),
        ("./podman.toml", "1", False),
        ("podman@5.toml", "1", False),
    ],
)
def test_only_unknown_version_of_a_listed_runtime_is_reported(
    known: Path, name: str, version: str | None, *, reported: bool
) -> None:
    """The message lists the known versions; a user's description is not covered."""
    said = uncovered_version(name, version, known)
    assert bool(said) == reported
    if reported:
        assert said.startswith(f"podman {version} has no list of known deviations")
        assert ">=5.4,<5.5 and >=5.6,<5.7" in said
        assert f"`netmodes vendors {name}`" in said


def test_message_is_in_the_summary(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime has to report its version first."""
    folder = project.mkdir("suites") / "expected"
    folder.mkdir()
    monkeypatch.setattr("harness.plugin.requirements.SUITES", folder.parent)
    (folder / "mydocker.toml").write_text(FILE.format("mydocker"))
    project.makepyfile(
        test_it="""
        from harness.plugin.marks import requirement

        @requirement("CTR-2")
        def test_it(runtime): assert runtime.version
        """
    )
    result = run(project, "--runtime=mydocker")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*mydocker: report*", "mydocker * has no list of known deviations: *"]
    )
