"""Tests of the report that a run leaves, also if the run ends early."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.report import schema, store
from harness.report.schema import Verdict
from linux import syscalls
from tests.report.projects import GREEN, RED, WORKERS, last_report, run
from tests.support.programs import Watched

# --- contents ---------------------------------------------------------------------------


@WORKERS
def test_run_leaves_a_report(project: pytest.Pytester, workers: list[str]) -> None:
    """A run leaves a report of the runtime, verdicts, times, failures and output.

    The terminal shows the report's path.
    """
    project.makepyfile(test_it=RED)
    result = run(project, *workers)
    result.stdout.fnmatch_lines([f"report: {project.path}/report/index.html"])
    report = last_report(project)
    assert report.complete
    assert (report.implementation.name, report.exit) == ("acme", 1)
    assert report.totals.tests.total == 4
    assert {item.id: item.verdict for item in report.requirements if item.tests} == {
        "BR-1": Verdict.KEPT,
        "BR-2": Verdict.BROKEN,
        "BR-4": Verdict.BROKEN,
        "HOST-1": Verdict.UNSUPPORTED,
    }
    broken, *_ = (test for test in report.tests if test.verdict is Verdict.BROKEN)
    (failure,) = broken.failures
    assert broken.id == "test_it.py::test_broken"
    assert failure.message == "(1 + 1) == 3"
    assert "assert 1 + 1 == 3" in failure.text
    assert [section.text for section in failure.sections] == ["said before\n"]
    assert {path.name for path in (project.path / "report").iterdir()} == set(store.NAMES)


@WORKERS
def test_cells_are_reported_with_their_test(project: pytest.Pytester, workers: list[str]) -> None:
    """Each cell is reported with the test that observed it, whichever process ran the test."""
    from tests.plugin.test_matrices import MATRICES

    project.makepyfile(test_it=MATRICES)
    run(project, *workers)
    report = last_report(project)
    (matrix,) = report.matrices
    assert (matrix.counts.cells, matrix.counts.wrong) == (20, 12)
    wrong = [cell for cell in matrix.cells if not cell.kept]
    assert {cell.test for cell in wrong} == {"test_it.py::test_cells[12]"}
    assert report.totals.cells == matrix.counts


def test_live_run_reports_runtime_and_plan(project: pytest.Pytester) -> None:
    """The report of a live run has the runtime's version, features, dialect and all plans."""
    project.makepyfile(
        test_it="""
        from harness.plugin.marks import requirement

        @requirement("CTR-2")
        def test_it(cast): cast.observed(list(cast.promised())[:4])
        """
    )
    result = run(project, "--runtime=mydocker")
    result.assert_outcomes(passed=1)
    report = last_report(project)
    assert report.implementation.version
    assert "bridge" in report.implementation.features
    assert report.implementation.dialect["bridge_name"] == "docker0"
    (matrix,) = report.matrices
    assert matrix.stage
    assert matrix.counts.cells == 4
    joiner, *_ = (item for item in matrix.stage.containers if item.joined)
    assert joiner.joined == "container01"
    assert matrix.stage.networks[0].interface == "docker0"
    assert matrix.stage.containers[0].addresses[0].startswith("172.17.")


@pytest.mark.parametrize("argument", ["suites", "suites.modes.test_none"])
def test_node_ids_of_suites_do_not_depend_on_their_folder(
    project: pytest.Pytester, argument: str
) -> None:
    """A test's node id does not depend on the folder of the suites or the command line.

    An expectation file is therefore valid on another machine.
    """
    name = "test_container_without_network_has_its_own_netns"
    options = ("--pyargs", argument, "-k", name, "--runtime=mydocker")
    project.runpytest_subprocess(*options).assert_outcomes(passed=1)
    report = last_report(project)
    assert [test.id for test in report.tests] == [f"suites/modes/test_none.py::{name}"]
    assert report.selection.narrowed


def test_run_without_marked_tests_keeps_the_earlier_report(project: pytest.Pytester) -> None:
    """A run without marked tests keeps the earlier report, unless `--report` is given."""
    project.makepyfile(test_it="def test_of_nothing(): pass")
    run(project)
    assert not (project.path / "report").exists()
    run(project, "--report=here")
    assert last_report(project, "here").totals.tests.kept == 1


def test_no_report_option_prevents_the_report(project: pytest.Pytester) -> None:
    """With `--no-report` a run writes no report; with `--report` too it is a usage error."""
    project.makepyfile(test_it=GREEN)
    run(project, "--no-report").assert_outcomes(passed=2, skipped=1)
    assert not (project.path / "report").exists()
    result = run(project, "--no-report", "--report=here")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--setup-only"])
def test_informational_run_writes_no_report(project: pytest.Pytester, option: str) -> None:
    """An informational run such as --collect-only keeps the earlier report."""
    project.makepyfile(
        test_it="""
        from harness.plugin.marks import requirement

        @requirement("BR-1")
        def test_it(scene, guard): assert 0
        """
    )
    result = run(project, option, "--runtime=mydocker", "--report=here")
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    assert "here" not in {path.name for path in project.path.iterdir()}
    if option != "--collect-only":
        setups = ("world", "runtime (fixtures used: world)", "scene (fixtures used: *")
        result.stdout.fnmatch_lines([f"*SETUP * {line}" for line in setups])


def test_summary_is_appended_to_the_file_of_the_github_job(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary is appended to the summary file of the GitHub job, after the text of other steps.

    This also holds for a run that writes no report.
    """
    job = project.path / "job.md"
    job.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job))
    project.makepyfile(test_it=RED)
    run(project, "--no-report")
    assert job.read_text().startswith("before\n## netmodes: acme\n")
    assert "Does not conform: 2 requirements not kept" in job.read_text()


HOSTILE = r"""
import pytest, sys

def test_message(): raise AssertionError("\x1b]0;owned\x07" + "\x9b31m")

def test_output():
    print("out\x1b[2J")
    sys.stderr.write("err\x1b[8m\x08")
    assert 0

@pytest.fixture
def trouble(): raise OSError("\x1b[H")

def test_error(trouble): pass

def test_skip(): pytest.skip("reason \x1b[5n")

class Evil:
    def __repr__(self): return "\x1bc"

def test_repr(): assert {"k": "\x1b[2J"} == {"k": Evil()}
"""


@WORKERS
def test_runtime_output_is_escaped_on_the_terminal(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """The terminal shows runtime output escaped, in messages, code, output and skip reasons."""
    project.makepyfile(test_it=HOSTILE)  # a short name leaves room for the message in the summary
    result = run(project, "--report=r", "--color=no", "-rfEs", *workers)
    result.assert_outcomes(failed=3, errors=1, skipped=1)
    shown = result.stdout.str()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    for text in (r"\x1b]0;owned\x07\x9b31m", r"out\x1b[2J", r"err\x1b[8m\x08", r"reason \x1b[5n"):
        assert text in shown
    assert r"FAILED test_it.py::test_message - AssertionError: \x1b]0;owned" in shown


# --- cut short -------------------------------------------------------------------------

WAITING = """
import pytest
from harness.plugin.marks import requirement
from tests.support.programs import until_interrupted

@requirement("BR-1")
@pytest.mark.parametrize("n", range(3))
def test_quick(n): pass

@requirement("BR-2")
def test_slow(capfd):
    with capfd.disabled():
        until_interrupted("waiting")
"""


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=" ".join)
def test_interrupted_run_leaves_a_partial_report(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """A run interrupted by Ctrl-C leaves a partial report with the results up to then."""
    project.makepyfile(test_it=WAITING)
    argv = [sys.executable, "-m", "pytest", "-p", "no:randomly", *workers]
    with Watched(argv) as watched:
        watched.expect("waiting")
        watched.process.send_signal(signal.SIGINT)
        assert watched.end() == pytest.ExitCode.INTERRUPTED
        assert "report: partial: interrupted: KeyboardInterrupt" in watched.output
    report = last_report(project)
    assert report.totals.tests.kept == 3
    assert "interrupted" in report.partial[0]
    assert "Partial report" in (project.path / "report" / "index.html").read_text()


def test_killed_run_replaces_the_earlier_report(project: pytest.Pytester) -> None:
    """A run that was killed by SIGKILL leaves a partial report, and no page of an earlier run."""
    project.makepyfile(test_it=GREEN)
    run(project)
    assert last_report(project).complete
    project.makepyfile(test_it=WAITING)
    with Watched([sys.executable, "-m", "pytest"]) as watched:
        watched.expect("waiting")
        watched.process.kill()
        watched.end()
    assert last_report(project).partial == ("the run did not finish",)
    assert not (project.path / "report" / "index.html").exists()


def test_killed_worker_makes_the_report_partial(project: pytest.Pytester) -> None:
    """A killed worker makes the report partial and fails the run.

    The worker's current test is an error; the other tests run.
    """
    killed = WAITING.replace('until_interrupted("waiting")', "__import__('os').abort()")
    project.makepyfile(test_it=killed)
    result = run(project, "-n", "1", "--max-worker-restart=1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    report = last_report(project)
    assert [reason for reason in report.partial if reason.startswith("worker gw0 ended early")]
    (slow,) = (test for test in report.tests if test.id.endswith("test_slow"))
    assert slow.verdict is Verdict.ERROR
    assert slow.failures[0].when == "crash"
    assert result.parseoutcomes()["errors"] == 1
    assert "failed" not in result.parseoutcomes()


def test_collection_error_makes_the_report_partial(project: pytest.Pytester) -> None:
    """A collection error makes the report partial; tests of the broken file are missing."""
    project.makepyfile(test_it=GREEN, test_bad="import nothing_of_the_kind")
    result = run(project, "--report=r", "--continue-on-collection-errors")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert last_report(project, "r").partial == ("test_bad.py could not be collected",)


def test_exitfirst_makes_the_report_partial(project: pytest.Pytester) -> None:
    """`--exitfirst` makes the report partial. The report has the number of tests not run."""
    project.makepyfile(test_it=RED.replace("def test_kept(): pass", "def test_kept(): assert 0"))
    run(project, "-x")
    assert last_report(project).partial == ("3 of 4 tests did not run",)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of temporary files."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_unwritable_folder_fails_the_run(project: pytest.Pytester, temporary: Path) -> None:
    """A run fails if its report folder is unwritable, but it still shows the verdicts.

    A line names the temporary folder that has the report instead.
    """
    project.makepyfile(test_it=GREEN)
    (project.path / "file").write_text("in the way")
    result = run(project, "--report=file/report")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    told = [line for line in result.outlines if line.startswith("report: cannot write to")]
    why = f"cannot write to {project.path}/file/report: Not a directory"
    (instead,) = (item.removeprefix(f"report: {why}; a partial report is in ") for item in told)
    assert Path(instead).parent == temporary
    assert Path(instead).name.startswith("netmodes-report-")
    report = schema.load(Path(instead))
    assert report.partial == (why,)
    assert report.exit == 1
    assert report.totals.tests.kept == 2
    assert (Path(instead) / "index.html").is_file()
    result.stdout.fnmatch_lines(["1 kept, 1 unsupported*"])
    result.assert_outcomes(passed=2, skipped=1)


@pytest.fixture(params=["64k", "160k"], ids=["room for report.json", "no room for the page"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Mount a file system with room for one or two `report.json`, but not for a page."""
    place = tmp_path / "small"
    place.mkdir()
    syscalls.mount("tmpfs", str(place), "tmpfs", 0, f"size={request.param}")
    yield place
    syscalls.umount(str(place))


def test_full_disk_fails_the_run(
    project: pytest.Pytester, small_disk: Path, temporary: Path
) -> None:
    """A full disk fails the run and leaves only a valid partial report."""
    project.makepyfile(test_it=GREEN)
    result = run(project, f"--report={small_disk}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["report: cannot write to * No space left on device*"])
    result.stdout.fnmatch_lines(["1 kept, 1 unsupported*"])
    assert {path.name for path in small_disk.iterdir()} == {"report.json"}
    (instead,) = temporary.iterdir()
    whole = schema.load(instead)
    assert any("No space left on device" in words for words in whole.partial)
    assert whole.totals.tests.kept == 2
    report = schema.load(small_disk)
    assert report.partial
    assert report.exit != 0


def test_full_disk_removes_the_earlier_report(project: pytest.Pytester, small_disk: Path) -> None:
    """On a full disk the files of an earlier report are removed.

    They make room for the partial report.
    """
    project.makepyfile(test_it=GREEN)
    run(project)
    shutil.copy(project.path / "report" / "report.json", small_disk)
    with contextlib.suppress(OSError), open(small_disk / "index.html", "wb", buffering=0) as page:
        while page.write(bytes(4096)) == 4096:
            pass
    assert run(project, f"--report={small_disk}").ret == pytest.ExitCode.TESTS_FAILED
    assert {path.name for path in small_disk.iterdir()} == {"report.json"}
    assert schema.load(small_disk).partial
