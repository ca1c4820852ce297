"""A run of a version that nobody has looked at says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report.expectations import unseen
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
    """Expectation files: of podman's, about two versions, and of a runtime's about any."""
    (tmp_path / "podman.toml").write_text(FILE.format("podman"))
    (tmp_path / "acme.toml").write_text(
        '[[deviation]]\nruntime = "acme"\ntest = "a"\nreason = "b"\n'
    )
    return tmp_path


@pytest.mark.parametrize("name", ["podman", "podman@/opt/podman-4"])
@pytest.mark.parametrize("version", ["4.9.3", "5.5.0", "5.7", "6.0.0~rc1-1"])
def test_another_version_has_not_been_looked_at(known: Path, name: str, version: str) -> None:
    """With those that have been."""
    said = unseen(name, version, known)
    assert said.startswith(f"podman {version} has not been looked at")
    assert ">=5.4,<5.5 and >=5.6,<5.7" in said
    assert f"`netmodes vendors {name}`" in said


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("podman", "5.4.2"),
        ("podman", "5.6.1-rc1"),
        ("podman", None),
        ("acme", "1"),
        ("another", "1"),
        ("./podman.toml", "1"),
        ("podman@5.toml", "1"),
    ],
)
def test_nothing_is_said_of_one_that_has_or_of_which_nothing_is_known(
    known: Path, name: str, version: str | None
) -> None:
    """A description in a file is its author's affair."""
    assert unseen(name, version, known) == ""


def test_it_stands_beside_where_the_report_is(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the runtime has told its version."""
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
    result.stdout.fnmatch_lines(["*mydocker: report*", "mydocker * has not been looked at: *"])
