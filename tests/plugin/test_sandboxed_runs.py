"""Tests that a run inside the sandbox behaves like a run without one."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.programs import Watched

PASS = "def test_it(): pass"
INSIDE = """
import os
from harness.sandbox import sandbox

def test_inside(tmp_path):
    assert sandbox.inside()
    assert os.listdir("/sys/class/net") == ["lo"]
"""
AMID = """
import socket

def test_it():
    left = socket.socket()
    raise KeyboardInterrupt
"""
"""A test that leaves a socket open when it is interrupted, of which the interpreter warns."""

ENDINGS = {
    "passed": (PASS, [], pytest.ExitCode.OK),
    "failed": ("def test_it(): assert 0", [], pytest.ExitCode.TESTS_FAILED),
    "interrupted": ("def test_it(): raise KeyboardInterrupt", [], pytest.ExitCode.INTERRUPTED),
    "interrupted amid something": (AMID, [], pytest.ExitCode.INTERRUPTED),
    "crashed": (
        "def pytest_runtestloop(): raise RuntimeError",
        ["-p", "test_it"],
        pytest.ExitCode.INTERNAL_ERROR,
    ),
    "misused": (PASS, ["no-such-file"], pytest.ExitCode.USAGE_ERROR),
    "empty": ("", [], pytest.ExitCode.NO_TESTS_COLLECTED),
}


@pytest.mark.parametrize("where", ["always", "never"])
@pytest.mark.parametrize(("source", "args", "code"), ENDINGS.values(), ids=list(ENDINGS))
def test_sandbox_does_not_change_the_exit_code_of_a_run(
    project: pytest.Pytester, source: str, args: list[str], code: int, where: str
) -> None:
    """A run has the same exit code with a sandbox as without one."""
    project.makepyfile(test_it=source)
    assert project.runpytest_subprocess(f"--sandbox={where}", *args).ret == code


@pytest.mark.parametrize("workers", [[], ["-n", "2"], ["-p", "no:xdist"]], ids=" ".join)
def test_tests_and_workers_run_in_the_sandbox(project: pytest.Pytester, workers: list[str]) -> None:
    """Tests and workers run inside the sandbox, and use its temporary directories."""
    project.makepyfile(test_a=INSIDE, test_b=INSIDE)
    result = project.runpytest_subprocess("--sandbox=always", *workers)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["netmodes *: runtime acme, sandbox private namespaces, Linux *"])


def test_header_lists_programs_from_a_folder(project: pytest.Pytester) -> None:
    """The header lists the programs from the folder in `--runtime NAME@FOLDER`, and missing ones.

    If the folder has only a client, a daemon of another version would run.
    """
    folder, daemon = project.mkdir("v2"), project.path / "acmed"
    for path in (folder / "acmectl", daemon):
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    described = project.path / "acme.toml"
    described.write_text(
        f"""
        [runtime]
        command = ["acmectl"]
        features = ["bridge"]
        [[daemon]]
        command = ["{daemon}"]
        socket = "/run/acme.sock"
        """
    )
    project.makepyfile(PASS)
    result = project.runpytest_subprocess("--runtime", f"{described}@{folder}")
    result.stdout.fnmatch_lines(["netmodes *", f"from {folder}: acmectl; as installed: {daemon}"])
    result.assert_outcomes(passed=1)


def test_run_inside_a_sandbox_creates_no_other(project: pytest.Pytester) -> None:
    """By default, a run that is started inside a sandbox creates no other sandbox."""
    project.makepyfile("import os\ndef test_pid(): assert os.getpid() != 2")
    project.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("option", ["--collect-only", "--fixtures", "--markers", "--help"])
def test_informational_options_create_no_sandbox(project: pytest.Pytester, option: str) -> None:
    """With an option such as `--collect-only`, which runs no test, no sandbox is created.

    The machine need not support a sandbox then.
    """
    project.makeconftest("import os\ndef pytest_unconfigure(): print(f'<pid {os.getpid()}>')")
    result = project.runpytest_subprocess("--sandbox=always", option)
    result.stdout.fnmatch_lines(["*<pid *>"])
    result.stdout.no_fnmatch_line("*<pid 2>")


def test_reports_and_cache_outlive_the_sandbox(project: pytest.Pytester) -> None:
    """`--junitxml` writes its file and `--lf` its cache as without a sandbox."""
    project.makepyfile("def test_bad(): assert 0\ndef test_good(): pass")
    first = project.runpytest_subprocess("--sandbox=always", "--junitxml=out/report.xml")
    first.assert_outcomes(failed=1, passed=1)
    assert len(ElementTree.parse(Path("out/report.xml")).findall(".//testcase")) == 2
    second = project.runpytest_subprocess("--sandbox=always", "--lf")
    second.assert_outcomes(failed=1)


def test_run_can_be_started_in_any_directory(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run can be started in a directory below or beside its tests."""
    project.makepyfile(INSIDE)
    monkeypatch.chdir(project.mkdir("below"))
    project.runpytest_subprocess("--sandbox=always", "..").assert_outcomes(passed=1)


def test_standard_input_is_passed_through(project: pytest.Pytester) -> None:
    """With `-s` a test can read the standard input of the run."""
    project.makepyfile("def test_read(): assert input() == 'a line'")
    argv = [sys.executable, "-m", "pytest", "-s", "--sandbox=always"]
    assert project.run(*argv, stdin=b"a line\n").ret == 0


def pytest_on_terminal(*args: str) -> Watched:
    """Start a run in its own sandbox on a new terminal."""
    argv = [sys.executable, "-m", "pytest", "--sandbox=always", *args]
    return Watched(argv, terminal=True)


def test_pdb_reads_and_prints_on_the_terminal(project: pytest.Pytester) -> None:
    """`--pdb` reads and prints on the terminal of the run, and continues the run."""
    project.makepyfile("def test_bad():\n    answer = 6\n    assert answer == 7")
    with pytest_on_terminal("--pdb") as run:
        run.expect("(Pdb)")
        run.type("print(answer * 7)\n")
        run.expect("42")
        run.expect("(Pdb)")
        run.type("continue\n")
        run.expect("1 failed")
        assert run.end() == pytest.ExitCode.TESTS_FAILED


SLOW = """
import pytest, sys
from tests.support.programs import until_interrupted

@pytest.fixture(scope="session", autouse=True)
def around():
    yield
    print("torn down", file=sys.__stderr__)

def test_waits(capfd):
    with capfd.disabled():
        until_interrupted("waiting")
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=" ".join)
def test_ctrl_c_tears_down_fixtures(project: pytest.Pytester, workers: list[str]) -> None:
    """Ctrl-C interrupts a run once.

    Fixtures are torn down, and the summary is printed.
    """
    project.makepyfile(SLOW)
    with pytest_on_terminal("-s", *workers) as run:
        run.expect("waiting")
        run.type("\x03")
        assert run.expect("no tests ran").count("KeyboardInterrupt !!!") == 1
        assert run.end() == pytest.ExitCode.INTERRUPTED
