"""Tests of runs with an expectation file."""

from __future__ import annotations

import html
import os

import pytest

from harness.report import expectations
from tests.report.entries import TWO_VERSIONS
from tests.report.projects import (
    BY_SAYING,
    EXPECTED,
    FAILING,
    GREEN,
    RED,
    REFUSED,
    WORKERS,
    last_report,
    run,
)


@pytest.mark.parametrize(
    ("tests", "expected", "told"),
    [
        (RED, EXPECTED + FAILING, "gate passed: acme *, compared with expect.toml*"),
        (RED, EXPECTED, "  new failures*1: test_it.py::test_broken (broken: BR-2, BR-4)*"),
        (GREEN, FAILING, "  gone*1: test test_it.py::test_broken*"),
    ],
)
def test_gate_decides_the_exit_status(
    project: pytest.Pytester, tests: str, expected: str, told: str
) -> None:
    """A run with only listed failures exits with 0; a run with an untrue entry fails."""
    status = 0 if told.startswith("gate passed: ") else 1
    project.makepyfile(test_it=tests)
    (project.path / "expect.toml").write_text(expected)
    result = run(project, "--expect=expect.toml")
    assert result.ret == status
    result.stdout.fnmatch_lines([told])
    gate = last_report(project).gate
    assert gate
    assert gate.ok is not bool(status)


@WORKERS
def test_run_passes_with_the_file_of_an_identical_run(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """A run passes the gate with the expectation file that an identical run has written.

    `--write-expect` creates the file's folder. A second `--write-expect` changes nothing.
    """
    project.makepyfile(test_it=RED)
    path = project.path / "new" / "folder" / "e.toml"
    assert run(project, f"--write-expect={path}", *workers).ret == 1
    written = path.read_text()
    assert 'test = "test_it.py::test_broken"' in written
    assert run(project, f"--expect={path}", f"--write-expect={path}", *workers).ret == 0
    assert path.read_text() == written
    assert [*path.parent.iterdir()] == [path]


EXCUSED = (
    '(error, at most 3 by the error pattern "failed to bind a listener on *": bound too early)'
)


@WORKERS
def test_known_refusal_excuses_every_affected_test(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """A listed refusal by the runtime excuses every test in which the refusal occurs.

    Two tests share the fixture that was refused. `--write-expect` lists neither of them.
    """
    project.makepyfile(test_it=REFUSED)
    (project.path / "expect.toml").write_text(BY_SAYING)
    orders = ("--expect=expect.toml", "--write-expect=expect.toml")
    result = run(project, *orders, *workers)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "gate passed: acme *, compared with expect.toml (1 known deviations)",
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


def test_additional_failure_of_an_excused_test_fails_the_run(project: pytest.Pytester) -> None:
    """An additional failure of an excused test fails the run.

    The failure is raised in the teardown, or while the listed refusal is handled.
    """
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


@pytest.mark.parametrize(
    "part", [["-k", "kept", "-n", "2"], ["test_it.py::test_kept"]], ids=["-k", "name"]
)
def test_gate_ignores_tests_that_were_not_selected(
    project: pytest.Pytester, part: list[str]
) -> None:
    """Deselected tests count as neither fixed nor gone, and stay in the expectation file."""
    project.makepyfile(test_it=RED)
    (project.path / "expect.toml").write_text(EXPECTED + FAILING)
    orders = ("--expect=expect.toml", "--write-expect=expect.toml")
    assert run(project, *orders, *part).ret == 0
    assert 'test = "test_it.py::test_broken"' in (project.path / "expect.toml").read_text()


def test_bad_expectation_file_is_a_usage_error(project: pytest.Pytester) -> None:
    """An invalid expectation file ends the run before the first test, and names the entry."""
    project.makepyfile(test_it=GREEN)
    (project.path / "expect.toml").write_text('[[deviation]]\nruntime = "acme"')
    result = run(project, "--expect=expect.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --expect *deviation 1: give exactly one of requirement*"])
    result = run(project, "--expect=absent.toml")
    result.stderr.fnmatch_lines(["ERROR: --expect *no such file; --write-expect creates one"])
    (project.path / "twice.toml").write_text(EXPECTED + FAILING + EXPECTED)
    result = run(project, "--expect=twice.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --expect *twice.toml: deviation 3 (requirement HOST-1): it repeats deviation 1*"]
    )


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("bad.toml", "the file is not TOML: *"),
        ("twice.toml", "deviation 2 (requirement HOST-1): it repeats deviation 1; remove one"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("bad.toml/below.toml", "Not a directory"),
    ],
)
def test_unwritable_expectation_file_is_a_usage_error(
    project: pytest.Pytester, place: str, why: str
) -> None:
    """An unwritable expectation file ends the run before the first test.

    An existing file stays unchanged.
    """
    project.makepyfile(test_it=GREEN)
    (project.path / "bad.toml").write_text("[[deviation")
    (project.path / "twice.toml").write_text(EXPECTED + EXPECTED)
    (project.path / "folder").mkdir()
    os.mkfifo(project.path / "pipe")  # stands for a device, which root would replace
    result = run(project, f"--write-expect={place}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --write-expect {project.path / place}: {why}"])
    assert (project.path / "bad.toml").read_text() == "[[deviation"


def test_run_fails_if_its_expectation_file_is_damaged_meanwhile(project: pytest.Pytester) -> None:
    """If the expectation file becomes invalid during a run, the run fails and names the file."""
    spoils = "def test_spoils(tmp_path):\n    (Path.cwd() / 'e.toml').write_text('[[deviation')\n"
    project.makepyfile(test_it=f"from pathlib import Path\n{GREEN}\n{spoils}")
    result = run(project, "--write-expect=e.toml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"gate: {project.path}/e.toml: the file is not TOML: *"])


def test_summary_names_a_version_without_expectations(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary names the runtime's version if no expectation file covers the version.

    The runtime reports its version first.
    """
    folder = project.mkdir("suites") / "expected"
    folder.mkdir()
    monkeypatch.setattr("harness.plugin.requirements.SUITES", folder.parent)
    (folder / "mydocker.toml").write_text(TWO_VERSIONS.format("mydocker"))
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
