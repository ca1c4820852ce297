"""Tests of `--keep` and `--pause-on-fail`, which keep the world after a failed test."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import Watched, environment, run

FAILING = r"""
def test_broken(scene):
    scene.container("web")
    text = "said \x1b]0;owned\x07"
    assert scene["web"].name == "another", text

def test_next(): pass
"""
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--sandbox=always"]
CONFIG = """
[tool.pytest.ini_options]
netmodes = true
addopts = "-p harness.plugin"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project whose first test fails in a live world."""
    (tmp_path / "pyproject.toml").write_text(CONFIG)
    (tmp_path / "test_it.py").write_text(FAILING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return tmp_path


def test_printed_commands_enter_the_kept_world(project: Path) -> None:
    """The printed commands enter the host and a container of the kept world.

    Ctrl-C ends the run, which has failed.
    """
    with Watched([*PYTEST, "--keep"], env=environment()) as kept:
        text = kept.expect("The world is kept.")
        assert r"said \x1b]0;owned\x07" in text
        assert "\x1b]" not in text
        kept.expect("as the same user, run:\n")
        enter = kept.expect(" -m -p -n\n").strip()
        kept.expect("Then enter a namespace:\n")
        host = kept.expect(" -i -p\n").split("host", 1)[1].strip()
        kept.expect("  web ")
        container = kept.expect("\n").strip()
        listed = output_in_namespace(enter, host, "ls /sys/class/net /proc/sys/net/ipv4/conf")
        assert "docker0" in listed
        assert "br0" in listed
        inside = output_in_namespace(enter, container, "cat /proc/thread-self/net/dev")
        assert "eth0" in inside
        assert "docker0" not in inside
        kept.process.send_signal(signal.SIGINT)
        rest = kept.expect("1 failed")
        assert "test_next" not in rest
        assert kept.end() != 0


def output_in_namespace(enter: str, further: str, command: str) -> str:
    """Return the output of a command in a namespace that is entered by the printed command."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"{enter} -- {further} -- {command}"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TWICE = r"""
def test_first(scene):
    scene.container("web")
    assert False, "said \x1b]0;owned\x07"

def test_second(scene):
    scene.container("web")
    assert False, scene["web"].net.identity[1]

def test_next(): pass
"""


def test_each_pause_opens_a_shell_in_its_own_scene(project: Path) -> None:
    """Each pause opens a shell in the scene of the failed test, with that test's container.

    The run then continues, without leaks.
    """
    (project / "test_it.py").write_text(TWICE)
    argv = [*PYTEST, "--pause-on-fail"]
    with Watched(argv, terminal=True, env=environment(SHELL="/bin/sh")) as paused:
        assert "\x1b]" not in paused.expect("This is a shell on the host of the failed test")
        paused.expect("lab:host ")
        paused.type("exit\n")
        paused.expect("AssertionError: ")
        own = paused.expect("\n").strip()
        paused.expect("lab:host ")
        paused.type("inside web readlink /proc/self/ns/net | tr -d 'net:[]'\n")
        paused.expect(f"\n{own}")
        paused.type("exit\n")
        assert "left behind" not in paused.expect("2 failed, 1 passed")
        assert paused.end() == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "2", "--keep"], "--keep keeps one world: run without -n"),
        (["-n", "2", "--pause-on-fail"], "--pause-on-fail keeps one world: run without -n"),
        (["--pause-on-fail"], "--pause-on-fail needs a terminal; without one, use --keep"),
    ],
)
def test_keep_is_refused_with_workers_and_pause_without_terminal(
    project: Path, options: list[str], message: str
) -> None:
    """`--keep` is refused with workers, and `--pause-on-fail` is refused without a terminal.

    With workers there would be several worlds; without a terminal there is no shell. The run does
    not start.
    """
    done = run([*PYTEST, *options])
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr
