"""Tests of how the programs of runtimes are run: refusals, failures and crashes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from harness.adapters.bare import cni
from harness.adapters.bare.cni import CniAttachment, CniBroken
from harness.adapters.bare.protocol import StartRequest
from harness.adapters.bare.runtimes import foreground
from harness.adapters.bare.runtimes.lxc import Lxc
from harness.adapters.support.program import Program, ProgramBroken, ProgramRefused, read_pid
from harness.model.plan import ContainerSpec, Nothing
from harness.world.process import wait_for_end
from linux import proc

ENDED: Final = 10.0
"""Time limit in seconds for the end of a killed process, on a busy machine."""


def shell(folder: Path, script: str) -> Program:
    """Return a program that runs this shell script.

    The script is the only program on its PATH.
    """
    (folder / "acme").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "acme").chmod(0o755)
    return Program(("acme", "--global"), f"{folder}:/usr/bin:/bin")


def test_arguments_follow_global_options(tmp_path: Path) -> None:
    """The arguments of a program come after its global options.

    The log has the program's output.
    """
    shell(tmp_path, 'echo "$@"').run_checked("start", "a", log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "--global start a\n"


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("echo no such thing >&2; exit 7", ProgramRefused, "^no such thing$"),
        ("exit 7", ProgramBroken, "acme --global start exited with 7"),
        (
            "echo half; kill -9 $$",
            ProgramBroken,
            "start was ended by signal 9; its output is 'half'",
        ),
        (
            "echo so; echo 'panic: oh'; exit 2",
            ProgramBroken,
            r"start crashed with the output .*panic: oh",
        ),
        (
            "echo 'fatal error: oh'; exit 2",
            ProgramBroken,
            "start crashed with the output 'fatal error",
        ),
    ],
)
def test_failed_program_is_refused_or_broken(
    tmp_path: Path, script: str, error: type[Exception], words: str
) -> None:
    """A program that fails with a message has refused the request.

    A failure without a message, by a signal or with a crash report is an error.
    """
    with pytest.raises(error, match=words):
        shell(tmp_path, script).run_checked("start", log=tmp_path / "log")


def test_hanging_program_is_killed_with_its_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program that exceeds its time limit is killed, with its children.

    The error has the output up to then.
    """
    monkeypatch.setattr("harness.adapters.support.program.BOUND", 0.5)
    script = f"echo thinking; sleep 600 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(ProgramBroken, match=r"did not end within 0.5 s.*thinking"):
        shell(tmp_path, script).run_checked("start", log=tmp_path / "log")
    wait_for_end(int((tmp_path / "child").read_text()), ENDED)
    assert not proc.born(f"/proc/{(tmp_path / 'child').read_text().strip()}")


def test_program_with_endless_output_is_killed(tmp_path: Path) -> None:
    """A program that prints without end is killed before its time limit."""
    with pytest.raises(
        ProgramBroken, match=r"acme --global list printed more than 4 MiB.* was killed"
    ):
        shell(tmp_path, "exec yes").run("list")


def test_non_executable_program_is_reported(tmp_path: Path) -> None:
    """If a program cannot be executed, the error has the kernel's reason."""
    program = shell(tmp_path, "")
    (tmp_path / "acme").write_text("\0")
    with pytest.raises(ProgramBroken, match=r"^acme cannot be executed: .*Exec format error"):
        Program(program.command, str(tmp_path)).run_checked("start", log=tmp_path / "log")


@pytest.mark.parametrize("said", ["", "garbage", "-1", "7 8"])
def test_invalid_pid_file_is_reported(tmp_path: Path, said: str) -> None:
    """A pid file that is missing, empty or invalid is an error."""
    path = tmp_path / "pid"
    with pytest.raises(ProgramBroken, match=r"pid contains '' instead of a pid"):
        read_pid(path)
    path.write_text(f"{said}\n")
    with pytest.raises(ProgramBroken, match=f"pid contains '{said}' instead"):
        read_pid(path)
    path.write_text("17\n")
    assert read_pid(path) == 17


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 1", ProgramBroken),
        ("echo no >&2; exit 1", ProgramRefused),
        ("echo 'panic: oh' >&2; exit 2", ProgramBroken),
    ],
)
def test_foreground_runtime_that_exits_at_start_is_refused_or_broken(
    tmp_path: Path, script: str, error: type[Exception]
) -> None:
    """If a runtime in the foreground exits at its start, the request is refused.

    If it crashes, or has no message, the exit is an error.
    """
    program = shell(tmp_path, script)
    request = StartRequest(ContainerSpec("web"), ("true",), tmp_path, "")
    with pytest.raises(error):
        foreground.start(program.command, request, program.environment())


@pytest.mark.parametrize("script", ["kill -SEGV $$", "echo half; kill -SEGV $$"])
def test_crash_of_lxc_start_is_an_error_and_no_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    """A crash of lxc-start is an error, not a refusal, even if its log has a message."""
    monkeypatch.setattr("harness.adapters.bare.runtimes.lxc._HOME", str(tmp_path / "lxc"))
    (tmp_path / "lxc.log").write_text("it is going well\n")
    request = StartRequest(ContainerSpec("web", Nothing()), ("true",), tmp_path, "")
    with pytest.raises(ProgramBroken, match="was ended by signal 11"):
        Lxc(shell(tmp_path, script)).start(request)


@pytest.mark.parametrize("script", ["echo garbage", "echo '[]'", "kill -SEGV $$", "exit 1"])
def test_cni_plugin_without_result_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    """If a CNI plugin has no valid result, the plugin has failed, whatever it has printed."""
    monkeypatch.setattr("harness.adapters.bare.cni.folder", lambda _: str(tmp_path))
    shell(tmp_path, script)
    attachment = CniAttachment("lan", "web", "eth0", "", tmp_path)
    with pytest.raises(CniBroken, match="CNI plugin acme ADD"):
        cni.add(attachment, {"name": "lan", "plugins": [{"type": "acme"}]})
    with pytest.raises(CniBroken, match="CNI plugin acme ADD"):
        cni.lease(attachment, {"type": "acme"}, ())


def test_non_executable_cni_plugin_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Calling a CNI plugin that is not executable is an error.

    A query for its version returns none.
    """
    monkeypatch.setattr("harness.adapters.bare.cni.folder", lambda _: str(tmp_path))
    for name in ("acme", "bridge"):
        (tmp_path / name).write_text("\0")
        (tmp_path / name).chmod(0o755)
    assert cni.version(str(tmp_path)) == ""
    with pytest.raises(CniBroken, match=r"acme DEL cannot be executed: .*Exec format error"):
        cni.release(CniAttachment("lan", "web", "eth0", "", tmp_path), {"type": "acme"})
