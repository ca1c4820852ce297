"""What the gate makes of a run."""

from __future__ import annotations

import html
import os

import pytest

from harness.report import expectations
from tests.report.projects import (
    BY_SAYING,
    EXPECTED,
    FAILING,
    GREEN,
    RED,
    REFUSED,
    WORKERS,
    left,
    run,
)


@pytest.mark.parametrize(
    ("tests", "expected", "told"),
    [
        (RED, EXPECTED + FAILING, "gate: acme * is as expected by expect.toml*"),
        (RED, EXPECTED, "  new failures*1: test_it.py::test_broken (broken: BR-2, BR-4)*"),
        (GREEN, EXPECTED, "gate: acme * is as expected by expect.toml*"),
        (GREEN, FAILING, "  gone*1: test test_it.py::test_broken*"),
        (GREEN, "", "  not supported*1: HOST-1*"),
        (GREEN, EXPECTED.replace("HOST-1", "HOST-99"), "  gone*1: requirement HOST-99*"),
        (GREEN, EXPECTED.replace("HOST-1", "BR-1"), "  fixed*1: requirement BR-1*"),
    ],
)
def test_the_gate_decides_the_exit_status(
    project: pytest.Pytester, tests: str, expected: str, told: str
) -> None:
    """Failures that are listed do not fail the run, and a list that is not the truth does."""
    status = 0 if told.startswith("gate: ") else 1
    project.makepyfile(test_it=tests)
    (project.path / "expect.toml").write_text(expected)
    result = run(project, "--expect=expect.toml")
    assert result.ret == status
    result.stdout.fnmatch_lines([told])
    gate = left(project).gate
    assert gate
    assert gate.ok is not bool(status)


@WORKERS
def test_a_run_is_as_expected_by_what_it_has_written(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """--write-expect, then --expect, then --write-expect again changes nothing."""
    project.makepyfile(test_it=RED)
    assert run(project, "--write-expect=e.toml", *workers).ret == 1
    written = (project.path / "e.toml").read_text()
    assert 'test = "test_it.py::test_broken"' in written
    assert run(project, "--expect=e.toml", "--write-expect=e.toml", *workers).ret == 0
    assert (project.path / "e.toml").read_text() == written


EXCUSED = '(error, at most 3 by the saying "failed to bind a listener on *": bound too early)'


@WORKERS
def test_whoever_is_refused_a_start_by_a_known_defect_is_excused(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """All that share it, and all that say so; where it is written what is known as well."""
    project.makepyfile(test_it=REFUSED)
    (project.path / "expect.toml").write_text(BY_SAYING)
    orders = ("--expect=expect.toml", "--write-expect=expect.toml")
    result = run(project, *orders, *workers)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "gate: acme * is as expected by expect.toml, 1 known deviations",
            f"  excused * 2: test_it.py::test_shared, test_it.py::test_shared_too {EXCUSED}",
        ]
    )
    (listed,) = expectations.loads((project.path / "expect.toml").read_text())
    assert (listed,) == expectations.loads(BY_SAYING)
    page = (project.path / "report" / "index.html").read_text()
    for file in (page, (project.path / "report" / "summary.md").read_text()):
        assert "xcused" in file
        assert "bound too early" in file
        assert "test_it.py::test_shared_too" in html.unescape(file)


def test_a_test_that_fails_besides_is_not(project: pytest.Pytester) -> None:
    """In its tear-down, or while what was refused is dealt with."""
    besides = """
@pytest.fixture
def trouble():
    yield
    raise OSError("of the harness")

@pytest.fixture
def shop_of_its_own(trouble): start()

@requirement("BR-1")
def test_over(shop_of_its_own): pass

@pytest.fixture
def stand():
    try:
        assert 1 + 1 == 3
    finally:
        start()

@requirement("BR-1")
def test_with_another(stand): pass
"""
    project.makepyfile(test_it=REFUSED + besides)
    (project.path / "expect.toml").write_text(BY_SAYING)
    result = run(project, "--expect=expect.toml")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["  new failures * 2: test_it.py::test_over *, test_it.py::test_with_another *"]
    )


def test_the_gate_of_a_part_of_the_tests_is_about_that_part(project: pytest.Pytester) -> None:
    """With -k, what was not run is neither fixed nor gone."""
    project.makepyfile(test_it=RED)
    (project.path / "expect.toml").write_text(EXPECTED + FAILING)
    result = run(project, "--expect=expect.toml", "-k", "kept", "-n", "2")
    assert result.ret == 0


def test_a_test_that_is_run_by_its_name_speaks_for_itself_alone(project: pytest.Pytester) -> None:
    """What else is in its file has not run, and is neither gone nor taken out."""
    project.makepyfile(test_it=RED)
    (project.path / "expect.toml").write_text(EXPECTED + FAILING)
    orders = ("--expect=expect.toml", "--write-expect=expect.toml")
    assert run(project, *orders, "test_it.py::test_kept").ret == 0
    assert 'test = "test_it.py::test_broken"' in (project.path / "expect.toml").read_text()


def test_a_bad_expectation_file_is_a_usage_error(project: pytest.Pytester) -> None:
    """The run ends before it has begun, with the entry and the mistake."""
    project.makepyfile(test_it=GREEN)
    (project.path / "expect.toml").write_text('[[deviation]]\nruntime = "acme"')
    result = run(project, "--expect=expect.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --expect *deviation 1: name one requirement*"])
    result = run(project, "--expect=absent.toml")
    result.stderr.fnmatch_lines(["ERROR: --expect *no such file; --write-expect writes one"])
    (project.path / "twice.toml").write_text(EXPECTED + FAILING + EXPECTED)
    result = run(project, "--expect=twice.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --expect *twice.toml: deviation 3 (requirement HOST-1): deviation 1 lists it*"]
    )


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("bad.toml", "it is not TOML: *"),
        ("twice.toml", "deviation 2 (requirement HOST-1): deviation 1 lists it already"),
        ("folder", "it is no file"),
        ("pipe", "it is no file"),
        ("bad.toml/below.toml", "Not a directory"),
    ],
)
def test_expectations_that_cannot_be_written_are_a_usage_error(
    project: pytest.Pytester, place: str, why: str
) -> None:
    """The run ends before it has begun, with the file; none that is there is touched."""
    project.makepyfile(test_it=GREEN)
    (project.path / "bad.toml").write_text("[[deviation")
    (project.path / "twice.toml").write_text(EXPECTED + EXPECTED)
    (project.path / "folder").mkdir()
    os.mkfifo(project.path / "pipe")  # as a device is: as root that would be replaced
    result = run(project, f"--write-expect={place}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --write-expect {project.path / place}: {why}"])
    assert (project.path / "bad.toml").read_text() == "[[deviation"


def test_the_folder_of_expectations_is_made(project: pytest.Pytester) -> None:
    """As that of a report is."""
    project.makepyfile(test_it=GREEN)
    assert run(project, "--write-expect=new/folder/e.toml").ret == 0
    assert [path.name for path in (project.path / "new" / "folder").iterdir()] == ["e.toml"]


def test_expectations_that_are_spoilt_meanwhile_are_named(project: pytest.Pytester) -> None:
    """At the end there is still something that may go wrong, and the run fails."""
    spoils = "def test_spoils(tmp_path):\n    (Path.cwd() / 'e.toml').write_text('[[deviation')\n"
    project.makepyfile(test_it=f"from pathlib import Path\n{GREEN}\n{spoils}")
    result = run(project, "--write-expect=e.toml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"gate: {project.path}/e.toml: it is not TOML: *"])
