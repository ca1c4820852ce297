"""Tests of `netmodes compare`, which runs the suites for each runtime and prints one table."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path

import pytest

from harness.cli.compare import DATA, PAGE, TABLE
from harness.report import schema
from linux import syscalls
from tests.support.programs import ROOT, Watched, environment

WITHIN = 120.0
"""Time limit in seconds for two runs of pytest, on the slowest machine."""
pytestmark = pytest.mark.timeout(WITHIN + 10)

TESTS = """
from harness.plugin.marks import requirement

@requirement("NONE-1")
def test_kept(runtime): pass

@requirement("NET-4")
def test_names(runtime): pass

@requirement("BR-4")
def test_differs(runtime, scene): assert runtime.name == "mydocker"
"""


WAITING = """
from harness.plugin.marks import requirement
from tests.support.programs import until_interrupted

@requirement("NONE-1")
def test_kept(runtime):
    if runtime.name != "mydocker":
        until_interrupted("waiting")
"""
NOT_WITH_ACME = """
import pytest

def pytest_sessionstart(session):
    if session.config.getoption("runtime").endswith(".toml"):
        raise pytest.UsageError("not with acme\\x1b]0;owned\\x07")
"""
ACME = f"""
[runtime]
like = "mydocker-cli"
command = ["{sys.executable}", "-m", "runtime"]
features = ["bridge", "none"]
version = "7.1"
[runtime.env]
PYTHONPATH = "{ROOT}"
"""


def acme(folder: Path, text: str = ACME) -> str:
    """Write a description of mydocker that declares fewer features, and return its path."""
    (folder / "acme.toml").write_text(text)
    return str(folder / "acme.toml")


def compare(
    folder: Path, *names: str, tests: str = TESTS, more: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Compare these runtimes in a few tests."""
    return subprocess.run(
        comparing(folder, *names, tests=tests, more=more),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def comparing(folder: Path, *names: str, tests: str, more: Sequence[str] = ()) -> list[str]:
    """Return the command line that compares these runtimes."""
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\nnetmodes = true\n")
    words = ["--tests", str(folder), "-n", "0", "--output", str(folder / "out")]
    return [sys.executable, "-m", "harness.cli.main", "compare", *names, *words, *more]


def test_compare_table_has_a_verdict_per_runtime(tmp_path: Path) -> None:
    """The table has a column of verdicts for each runtime.

    It is printed, and written as Markdown, JSON and a page.
    """
    lesser = acme(tmp_path)
    done = compare(tmp_path, "mydocker", lesser)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    rows = json.loads((out / DATA).read_text())["requirements"]
    told = {row["id"]: row["verdicts"] for row in rows}
    assert told["NONE-1"] == {"mydocker": "pass", lesser: "pass"}
    assert told["NET-4"] == {"mydocker": "pass", lesser: "unsupported"}
    assert told["BR-4"] == {"mydocker": "pass", lesser: "fail"}
    assert "| BR-4 | MUST | pass | **fail** |" in (out / TABLE).read_text()
    assert (out / PAGE).is_file()
    assert schema.load(out / "mydocker").complete
    (line,) = [item for item in done.stdout.splitlines() if item.split()[:1] == ["BR-4"]]
    assert line.split()[1:] == ["MUST", "pass", "fail"]
    assert "\x1b" not in done.stdout, "a log has no progress bar"
    page = (tmp_path / "out" / PAGE).read_text()
    (led,) = re.findall(r'href="([^"#:]*/evidence/[^"]*/)"', page)
    assert (tmp_path / "out" / unescape(led) / "again.txt").is_file()


def test_interrupt_keeps_the_finished_runs(tmp_path: Path) -> None:
    """Ctrl-C ends the current run, and keeps the results of finished runs.

    One line is printed, without a traceback.
    """
    argv = comparing(tmp_path, "mydocker", acme(tmp_path), tests=WAITING)
    with Watched(argv) as watched:
        watched.expect("mydocker ")
        os.killpg(watched.process.pid, signal.SIGINT)
        assert watched.end() == 130
    table = tmp_path / "out" / TABLE
    assert f"netmodes compare: interrupted; {table} has the earlier runs\n" in watched.output
    assert "Traceback" not in watched.output
    assert "| NONE-1 | MUST | pass |" in table.read_text()


def test_runs_are_compared_with_expectation_files(tmp_path: Path) -> None:
    """Each run is compared with an expectation file.

    A changed verdict is reported and makes the exit code 1. A file that a run has written passes in
    the next run.
    """
    lesser, known = acme(tmp_path), tmp_path / "known"
    assert compare(tmp_path, lesser, more=["--write-expect", str(known)]).returncode == 0
    (written,) = known.iterdir()
    assert "test_differs" in written.read_text()
    assert compare(tmp_path, lesser, more=["--expect", str(known)]).returncode == 0
    written.write_text("")
    done = compare(tmp_path, lesser, more=["--expect", str(known)])
    assert done.returncode == 1
    assert f"differs from {written}" in done.stdout
    written.unlink()
    done = compare(tmp_path, lesser, more=["--expect", str(known)])
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--expect {written}: no such file" in done.stderr


OVERLAPPING = """
[[deviation]]
runtime = "{0}"
versions = ">=7"
requirement = "BR-4"
reason = "as it is"
[[deviation]]
runtime = "{0}"
versions = "<8"
requirement = "BR-4"
reason = "as it was"
"""


def test_unwritten_expectations_are_reported(tmp_path: Path) -> None:
    """If an expectation file could not be written, this is reported.

    Such a file may have entries that contradict each other for the version of the run only.
    """
    lesser, known = acme(tmp_path), tmp_path / "known"
    assert compare(tmp_path, lesser, more=["--write-expect", str(known)]).returncode == 0
    (written,) = known.iterdir()
    written.write_text(OVERLAPPING.format(lesser))
    done = compare(tmp_path, lesser, more=["--write-expect", str(known)])
    assert done.returncode == 1
    assert f"{written} was not written; the reason is in {tmp_path}/out/" in done.stdout
    assert written.read_text() == OVERLAPPING.format(lesser)


def test_failed_start_of_a_run_is_reported(tmp_path: Path) -> None:
    """If a run cannot start, the table has its error output.

    The other runs continue, and the exit code is 1.
    """
    (tmp_path / "conftest.py").write_text(NOT_WITH_ACME)
    lesser = acme(tmp_path)
    done = compare(tmp_path, lesser, "mydocker")
    assert done.returncode == 1
    assert f"{lesser}: did not run: exit code 4: " in done.stdout
    assert r"not with acme\x1b]0;owned\x07" in done.stdout
    assert "\x1b" not in done.stdout
    assert "mydocker 0" in done.stdout
    assert "| | level | mydocker |" in (tmp_path / "out" / TABLE).read_text()


def test_unknown_runtimes_are_refused_at_the_start(tmp_path: Path) -> None:
    """If a runtime is unknown or not installed, no run begins.

    The error has a reason for each such runtime.
    """
    absent = acme(tmp_path, ACME.replace(sys.executable, "acmectl-7"))
    done = compare(tmp_path, "mydocker", absent, "unknown")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"netmodes compare: {absent}: not installed: acmectl-7 not found" in done.stderr
    assert "netmodes compare: unknown: unknown adapter 'unknown'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_bad_tests_and_workers_are_refused_at_the_start(tmp_path: Path) -> None:
    """If a test path or the number of workers is invalid, no run begins.

    The error is a sentence for each.
    """
    absent = tmp_path / "absent"
    more = ["--tests", f"{tmp_path}/test_it.py::test_kept", "--tests", f"{absent}::test_it"]
    done = compare(tmp_path, "mydocker", more=[*more, "-n", "banana"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"netmodes compare: --tests {absent}::test_it: no such file or folder",
        "netmodes compare: -n banana: invalid number of workers; give a number, auto or logical",
    ]
    assert not (tmp_path / "out").exists()


def test_unwritable_output_is_refused_at_the_start(tmp_path: Path, small_disk: Path) -> None:
    """If the output cannot be written, no run begins; the error is a sentence.

    Examples are a missing folder, a full disk and a malformed expectation file.
    """
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "mydocker.toml").write_text("[deviation]")
    fill(small_disk)
    for more, why in (
        (["--output", "/dev/null"], "--output /dev/null: Not a directory"),
        (["--output", small_disk], f"--output {small_disk}: No space left on device"),
        (["--write-expect", "/dev/null/known"], "--write-expect /dev/null/known: Not a directory"),
        (
            ["--write-expect", tmp_path / "known"],
            f"mydocker: --write-expect {tmp_path}/known/mydocker.toml: write each entry under "
            "[[deviation]], in double brackets",
        ),
    ):
        done = compare(tmp_path, "mydocker", more=list(map(str, more)))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"netmodes compare: {why}\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system that has room for the report of one run."""
    place = tmp_path / "small"
    place.mkdir()
    syscalls.mount("tmpfs", str(place), "tmpfs", 0, "size=8m")
    yield place
    syscalls.umount(str(place))


def fill(disk: Path) -> None:
    """Write to the small file system until it is full."""
    with contextlib.suppress(OSError), open(disk / "full", "wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass


FILLING = """
from pathlib import Path
from tests.cli.test_compare import fill

def pytest_unconfigure(): fill(Path("{disk}"))
"""


def test_disk_that_fills_between_runs_is_an_error_of_one_sentence(
    tmp_path: Path, small_disk: Path
) -> None:
    """If the disk is full after some runs, the error is one sentence.

    The finished runs are printed, and the missing ones are named.
    """
    (tmp_path / "conftest.py").write_text(FILLING.format(disk=small_disk))
    lesser = acme(tmp_path)
    done = compare(tmp_path, "mydocker", lesser, more=["--output", str(small_disk)])
    assert done.returncode == 1
    assert "NONE-1" in done.stdout
    assert done.stderr == (
        f"netmodes compare: cannot write to {small_disk}: No space left on device; "
        f"not run: {lesser}\n"
    )
