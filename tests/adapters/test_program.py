"""A program that is asked: what it says no to, and what it must not do."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from harness.adapters.bare import cni
from harness.adapters.bare.cni import CniAttachment, CniBroken
from harness.adapters.bare.protocol import StartRequest
from harness.adapters.bare.runtimes import foreground
from harness.adapters.bare.runtimes.lxc import Lxc
from harness.adapters.support.program import Program, ProgramBroken, ProgramRefused, told_pid
from harness.model.plan import ContainerSpec, Nothing
from harness.world.process import wait_for_end
from linux import proc

ENDED: Final = 10.0
"""Seconds in which whoever was killed has ended, on a busy machine."""


def shell(folder: Path, script: str) -> Program:
    """Return a program that runs this script, found on a separate PATH."""
    (folder / "acme").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "acme").chmod(0o755)
    return Program(("acme", "--global"), f"{folder}:/usr/bin:/bin")


def test_what_it_is_asked_comes_behind_its_global_options(tmp_path: Path) -> None:
    """And what it writes is in the log."""
    shell(tmp_path, 'echo "$@"').ask("start", "a", log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "--global start a\n"


def test_a_no_is_told_in_its_own_words(tmp_path: Path) -> None:
    """Whatever it exits with."""
    with pytest.raises(ProgramRefused, match=r"^no such thing$"):
        shell(tmp_path, "echo no such thing >&2; exit 7").ask("start", log=tmp_path / "log")


@pytest.mark.parametrize("script", ["exit 7", "echo half; kill -9 $$"])
def test_silence_and_a_signal_are_no_answer(tmp_path: Path, script: str) -> None:
    """It is the runtime's error then, with the command and what it said."""
    with pytest.raises(
        ProgramBroken, match=r"acme --global start (exited with 7|was ended by signal 9)"
    ):
        shell(tmp_path, script).ask("start", log=tmp_path / "log")


@pytest.mark.parametrize("said", ["panic: runtime error: index out of range", "fatal error: oh"])
def test_a_crash_is_no_answer_whatever_it_has_printed(tmp_path: Path, said: str) -> None:
    """Go's runtime tells where it was, at length, and exits with 2."""
    script = f"echo starting >&2; echo '{said}' >&2; exit 2"
    with pytest.raises(ProgramBroken, match=f"acme --global start crashed; it said.*{said}"):
        shell(tmp_path, script).ask("start", log=tmp_path / "log")


def test_who_hangs_is_killed_with_what_he_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what he had said is told."""
    monkeypatch.setattr("harness.adapters.support.program.BOUND", 0.5)
    script = f"echo thinking; sleep 600 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(ProgramBroken, match=r"did not end within 0.5 s.*thinking"):
        shell(tmp_path, script).ask("start", log=tmp_path / "log")
    wait_for_end(int((tmp_path / "child").read_text()), ENDED)
    assert not proc.born(f"/proc/{(tmp_path / 'child').read_text().strip()}")


def test_who_prints_without_end_is_killed(tmp_path: Path) -> None:
    """At once: nobody reads all of that."""
    with pytest.raises(
        ProgramBroken, match=r"acme --global list printed more than 4 MiB.* was killed"
    ):
        shell(tmp_path, "exec yes").run("list")


def test_what_cannot_be_executed_is_told(tmp_path: Path) -> None:
    """With the kernel's words."""
    program = shell(tmp_path, "")
    (tmp_path / "acme").write_text("\0")
    with pytest.raises(ProgramBroken, match=r"^acme cannot be executed: .*Exec format error"):
        Program(program.command, str(tmp_path)).ask("start", log=tmp_path / "log")


@pytest.mark.parametrize("said", ["", "garbage", "-1", "7 8"])
def test_what_is_to_be_a_pid_and_is_none_is_told(tmp_path: Path, said: str) -> None:
    """Also where nothing was written, or no file at all."""
    path = tmp_path / "pid"
    with pytest.raises(ProgramBroken, match=r"pid is to tell a pid, and says ''"):
        told_pid(path)
    path.write_text(f"{said}\n")
    with pytest.raises(ProgramBroken, match=f"and says '{said}'"):
        told_pid(path)
    path.write_text("17\n")
    assert told_pid(path) == 17


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("kill -SEGV $$", ProgramBroken),
        ("exit 1", ProgramBroken),
        ("echo 'panic: oh' >&2; exit 2", ProgramBroken),
        ("echo no >&2; exit 1", ProgramRefused),
    ],
)
def test_who_stays_with_his_container_and_ends_at_once_says_why_or_is_broken(
    tmp_path: Path, script: str, error: type[Exception]
) -> None:
    """A crash is no orderly no."""
    program = shell(tmp_path, script)
    order = StartRequest(ContainerSpec("web"), ("true",), tmp_path, "")
    with pytest.raises(error):
        foreground.start(program.command, order, program.environment())


@pytest.mark.parametrize("script", ["kill -SEGV $$", "echo half; kill -SEGV $$"])
def test_a_crash_of_lxc_start_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    """Nor what it may have logged before."""
    monkeypatch.setattr("harness.adapters.bare.runtimes.lxc._HOME", str(tmp_path / "lxc"))
    (tmp_path / "lxc.log").write_text("it is going well\n")
    order = StartRequest(ContainerSpec("web", Nothing()), ("true",), tmp_path, "")
    with pytest.raises(ProgramBroken, match="was ended by signal 11"):
        Lxc(shell(tmp_path, script)).start(order)


@pytest.mark.parametrize("script", ["echo garbage", "echo '[]'", "kill -SEGV $$", "exit 1"])
def test_a_plugin_without_an_answer_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    """It is the plugin's error, whatever it printed."""
    monkeypatch.setattr("harness.adapters.bare.cni.folder", lambda _: str(tmp_path))
    shell(tmp_path, script)
    attachment = CniAttachment("lan", "web", "eth0", "", tmp_path)
    with pytest.raises(CniBroken, match="CNI plugin acme ADD"):
        cni.add(attachment, {"name": "lan", "plugins": [{"type": "acme"}]})
    with pytest.raises(CniBroken, match="CNI plugin acme ADD"):
        cni.lease(attachment, {"type": "acme"}, ())


def test_a_plugin_that_cannot_be_executed_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where it is called; who asks for its version has none."""
    monkeypatch.setattr("harness.adapters.bare.cni.folder", lambda _: str(tmp_path))
    for name in ("acme", "bridge"):
        (tmp_path / name).write_text("\0")
        (tmp_path / name).chmod(0o755)
    assert cni.version(str(tmp_path)) == ""
    with pytest.raises(CniBroken, match=r"acme DEL cannot be executed: .*Exec format error"):
        cni.release(CniAttachment("lan", "web", "eth0", "", tmp_path), {"type": "acme"})
