"""Tests of options whose value is a path, which pytest could mistake for a test path."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.programs import run

PYTEST = [sys.executable, "-m", "pytest"]
TEST = """
import os

def test_passes(pytestconfig):
    assert str(pytestconfig.rootpath) == os.getcwd()
"""
WORKERS = pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])


@pytest.fixture
def elsewhere(project: pytest.Pytester, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with tests outside the project, which has one test."""
    project.makepyfile(TEST)
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "test_foreign.py").write_text("def test_fails(): raise AssertionError")
    return folder


def assert_passes(root: Path, *words: str) -> None:
    """Run pytest in the project.

    Check that exactly the project's test runs and passes, with the project's settings.
    """
    done = run([*PYTEST, *words])
    assert (done.returncode, done.stderr) == (pytest.ExitCode.OK, ""), done.stdout
    assert f"rootdir: {root}\nconfigfile: pyproject.toml" in done.stdout
    assert "1 passed" in done.stdout


@WORKERS
@pytest.mark.parametrize("form", ["two words", "one word"])
@pytest.mark.parametrize("exists", [False, True], ids=["new", "existing"])
def test_report_folder_may_be_outside_the_project(
    project: pytest.Pytester, elsewhere: Path, workers: list[str], form: str, *, exists: bool
) -> None:
    """`--report DIR` and `--report=DIR` are equivalent, whether the folder exists or not."""
    folder = elsewhere if exists else elsewhere / "new"
    words = ["--report", str(folder)] if form == "two words" else [f"--report={folder}"]
    assert_passes(project.path, *workers, *words)
    assert json.loads((folder / "report.json").read_text())["exit"] == 0


@WORKERS
def test_report_folder_may_be_inside_the_project(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """A report folder inside the project may be a relative or an absolute path."""
    project.makepyfile(TEST)
    inside = project.mkdir("inside")
    for folder in (str(inside), "inside"):
        assert_passes(project.path, *workers, "--report", folder)
        assert (inside / "report.json").is_file()


@WORKERS
def test_option_files_may_be_outside_the_project(
    project: pytest.Pytester, elsewhere: Path, workers: list[str]
) -> None:
    """`--expect`, `--write-expect` and `--shard-by` accept a file outside the project."""
    assert_passes(project.path, f"--report={elsewhere}")
    known, written, times = (elsewhere / name for name in ("known", "written", "report.json"))
    known.touch()
    written.touch()
    assert_passes(project.path, *workers, "--expect", str(known), "--write-expect", str(written))
    assert_passes(project.path, *workers, "--shard", "1/1", "--shard-by", str(times))


def test_runtime_description_may_be_outside_the_project(
    project: pytest.Pytester, elsewhere: Path
) -> None:
    """`--runtime FILE` reads a description outside the project.

    The error for an invalid description is reported.
    """
    description = elsewhere / "acme.toml"
    description.write_text("nonsense = 1\n")
    done = run([*PYTEST, "--runtime", str(description)])
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"--runtime {description}: " in done.stderr
    assert "nonsense" in done.stderr
