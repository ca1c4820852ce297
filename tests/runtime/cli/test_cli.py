"""Tests of mydocker as a separate process: Docker's names, exit codes and output."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from linux.syscalls import mount, umount
from runtime.cli import main
from runtime.cli.main import parser
from runtime.engine import Engine
from runtime.errors import UnsupportedError
from tests.runtime.cli.conftest import MYDOCKER, Mydocker
from tests.runtime.support.inspection import links, nothing_left, until
from tests.support.programs import Watched


def test_run_passes_on_streams_and_exit_code(mydocker: Mydocker, root: Path) -> None:
    """`run` passes on stdin (with -i), stdout, stderr and the exit code; --rm leaves nothing."""
    mydocker("network", "ls")
    with nothing_left(root):
        script = "cat; echo err >&2; exit 7"
        done = mydocker("run", "--rm", "-i", "base", "sh", "-c", script, stdin="in\n")
        assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "err\n")
        done = mydocker("run", "--rm", "base", "cat", stdin="not passed on\n")
        assert (done.returncode, done.stdout) == (0, "")


def test_detached_run_prints_only_the_id(mydocker: Mydocker) -> None:
    """`run -d` prints only the ID; later commands accept the name, the ID or a prefix of it."""
    script = "echo hello; exec sleep 1000"
    identity = mydocker("run", "-d", "--name", "web", "base", "sh", "-c", script).stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", identity)
    done = mydocker("exec", "-e", "A=b", "-w", "/tmp", "web", "sh", "-c", "echo $A; pwd; exit 9")
    assert (done.returncode, done.stdout) == (9, "b\n/tmp\n")
    assert mydocker("exec", "-i", "web", "cat", stdin="in").stdout == "in"
    until(lambda: bool(mydocker("logs", identity[:12]).stdout), "the output is logged")
    assert mydocker("logs", identity[:12]).stdout == "hello\n"
    assert re.fullmatch(r"\d{4}-\S+Z hello\n", mydocker("logs", "-t", "web").stdout)
    assert mydocker("stop", "-t", "5", "web").stdout == "web\n"
    assert mydocker("wait", "web").stdout == "143\n"
    assert mydocker("rm", identity[:8]).stdout == f"{identity[:8]}\n"


def test_list_commands_print_dockers_columns(mydocker: Mydocker) -> None:
    """`ps`, `images` and `network ls` print Docker's columns; -q prints one ID per line."""
    identity = mydocker("run", "-d", "--name", "web", "base", "sleep", "1000").stdout.strip()
    mydocker("create", "--name", "new", "base", "true")
    head, row = mydocker("ps").stdout.splitlines()
    assert head.split() == (
        ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    )
    assert row.startswith(f'{identity[:12]}   base    "sleep 1000"')
    assert re.search(r"Up \d+ seconds? +web", row)
    assert [line.split()[-1] for line in mydocker("ps", "-a").stdout.splitlines()[1:]] == [
        "new",
        "web",
    ]
    assert mydocker("ps", "-q").stdout == f"{identity[:12]}\n"
    assert mydocker("images").stdout.splitlines()[1].split()[:2] == ["base", "latest"]
    made = mydocker("network", "create", "lan").stdout.strip()
    rows = [line.split() for line in mydocker("network", "ls").stdout.splitlines()[1:]]
    assert [made[:12], "lan", "bridge", "local"] in rows
    assert {row[1] for row in rows} == {"bridge", "host", "lan", "none"}


def test_inspect_has_dockers_keys(mydocker: Mydocker) -> None:
    """`inspect` prints the PID, status, address and network under Docker's keys."""
    mydocker("network", "create", "--subnet", "10.9.0.0/24", "-o", "mtu=1400", "lan")
    mydocker("run", "-d", "--name", "web", "--net", "lan", "base", "sleep", "1000")
    (web,) = json.loads(mydocker("inspect", "web").stdout)
    assert (web["Name"], web["State"]["Status"], web["State"]["Running"]) == (
        "/web",
        "running",
        True,
    )
    assert Path(f"/proc/{web['State']['Pid']}").exists()
    assert web["HostConfig"]["NetworkMode"] == "lan"
    assert web["NetworkSettings"]["IPAddress"] == "10.9.0.2"
    assert web["NetworkSettings"]["Networks"]["lan"]["Gateway"] == "10.9.0.1"
    (lan,) = json.loads(mydocker("network", "inspect", "lan").stdout)
    assert lan["IPAM"]["Config"][0]["Subnet"] == "10.9.0.0/24"
    assert lan["Options"]["com.docker.network.driver.mtu"] == "1400"
    assert lan["Containers"][web["Id"]]["IPv4Address"] == "10.9.0.2/24"
    assert mydocker("network", "rm", "lan").returncode == 1
    assert mydocker("rm", "-f", "web").returncode == 0
    assert mydocker("network", "rm", "lan").stdout == "lan\n"


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["run", "base", "nope"], 127, "no such command"),
        (["run", "base", "/etc/passwd"], 126, "Permission denied"),
        (["run", "nope", "true"], 125, "no such image"),
        (["run", "--net", "container:nope", "base", "true"], 125, "'nope'"),
        (["run", "--net", "a", "--network", "b", "base", "true"], 125, "has exactly one network"),
        (["run", "--net", "a:b", "base", "true"], 125, "container:<name or id>"),
        (["run", "--sysctl", "x", "base", "true"], 125, "KEY=VALUE"),
        (["run", "base"], 125, "no command"),
        (["inspect", "nope"], 1, "no such container"),
        (["logs", "nope"], 1, "no such container"),
        (["exec", "nope", "true"], 1, "'nope'"),
        (["exec", "-e", "=x", "nope", "true"], 1, "-e =x: the value is not KEY=VALUE"),
        (["logs", "-n", "²", "nope"], 1, "not a number of lines"),
        (["network", "create", "bridge"], 1, "a network of this name already exists"),
        (["network", "create", "--subnet", "a", "--subnet", "b", "lan"], 1, "at most one subnet"),
        (["save", "-o", "/nowhere/x", "base"], 1, "write /nowhere/x: No such file or directory"),
        (["network", "create", "--subnet", "10.0.0.0/33", "lan"], 1, "malformed"),
        (["network", "create", "-o", "mtu=x", "lan"], 1, "mtu=x"),
        (["run", "--cpus", "nan", "base", "true"], 125, "--cpus nan is not a possible"),
        (["run", "--cpus", "1e400", "base", "true"], 125, "--cpus inf is not a possible"),
        (["stop", "-t", "inf", "nope"], 2, "'inf' is not a number of seconds"),
        (["stop", "-t", "-1", "nope"], 2, "'-1' is not a number of seconds"),
        (["stop", "nope"], 1, "'nope'"),
        (["kill", "-s", "NOPE", "x"], 1, "NOPE"),
        (["kill", "-s", "99", "x"], 1, "unknown signal '99'"),
        (["kill", "-s", "RTMAX+1", "x"], 1, "unknown signal 'RTMAX+1'"),
        (["kill", "-s", "RTMIN+3", "x"], 1, "no such container"),
        (["network", "rm", "bridge"], 1, "predefined"),
        (["run", "-p", "x", "base", "true"], 125, "publish 'x'"),
        (["bogus"], 2, "invalid choice"),
        (["ps", "--bogus"], 2, "usage: mydocker ps [-h]"),
        (["network", "ls", "x"], 2, "mydocker network ls: error: unrecognized arguments: x"),
        (["rm", "-fv", "nope"], 1, "no such container"),
        (["run", "--name", "a" * 129, "base", "true"], 125, "at most 128 letters"),
        (["run", "--net", "a" * 300, "base", "true"], 125, "no such mode"),
        (["network", "create", "a" * 300], 1, "at most 128 letters"),
        (["volume", "create", "a" * 300], 1, "at most 128 letters"),
        (["rm", "a" * 300], 1, "no such container"),
        (["run", "-u", "99999999999", "base", "true"], 125, "the highest is 4294967294"),
        (["run", "-u", "0:4294967295", "base", "true"], 125, "the highest is 4294967294"),
        (["run", "--sysctl", "net.no=1", "base", "true"], 125, "has no such sysctl"),
        (["run", "--sysctl", "net.ipv4.ip_forward=x", "base", "true"], 125, "take such a value"),
        (["run", "--sysctl", "vm.swappiness=1", "base", "true"], 125, "kernel.shm…"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_have_dockers_exit_codes(
    mydocker: Mydocker, argv: list[str], code: int, message: str
) -> None:
    """A failed command exits with Docker's code and prints the cause, without a traceback."""
    done = mydocker(*argv)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_version_option_prints_the_version(mydocker: Mydocker) -> None:
    """`--version` prints a version of three numbers."""
    done = mydocker("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"mydocker \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    ("where", "cause"), [("file", "is a file"), ("file/below", "is a file"), ("/proc/x", "")]
)
def test_unusable_state_directory_is_reported(
    tmp_path: Path, mydocker: Mydocker, env: dict[str, str], where: str, cause: str
) -> None:
    """The error names an unusable state directory, a remedy, and if possible the cause."""
    (tmp_path / "file").touch()
    env["MYDOCKER_ROOT"] = str(tmp_path / where)
    done = mydocker("ps")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert f"use {tmp_path / where} for mydocker's state" in lines[0]
    assert lines[-1] == "  try: point MYDOCKER_ROOT at a directory that you own"
    assert (cause in lines[1]) if cause else len(lines) == 2


def test_command_continues_after_a_failed_container(mydocker: Mydocker) -> None:
    """A command continues with the other containers if one fails, and exits with 1."""
    mydocker("create", "--name", "a", "base", "true")
    done = mydocker("rm", "nope", "a")
    assert (done.returncode, done.stdout) == (1, "a\n")


def test_reset_removes_containers_networks_and_default_bridge(mydocker: Mydocker) -> None:
    """`reset` leaves only the interface `lo` on the host."""
    mydocker("run", "-d", "base", "sleep", "1000")
    assert "docker0" in links()
    assert mydocker("system", "reset").returncode == 0
    assert list(links()) == ["lo"]
    assert mydocker("ps", "-aq").stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["run --rm base", "exec web"])
def test_signal_is_forwarded_to_the_command(
    env: dict[str, str], mydocker: Mydocker, how: str, number: int
) -> None:
    """A mydocker process forwards its signals to the command and has the exit code of the command.

    If `exec` started the command, the container keeps running.
    """
    mydocker("run", "-d", "--name", "web", "base", "sleep", "1000")
    script = "trap 'exit 5' INT TERM; echo ready; while :; do sleep 0.01; done"
    watched = Watched([*MYDOCKER, *how.split(), "sh", "-c", script], env=env)
    watched.expect("ready\n")
    os.kill(watched.process.pid, number)
    assert watched.end() == 5
    assert mydocker("ps", "-q").stdout


@pytest.mark.parametrize("how", ["run", "exec"])
def test_terminal_is_controlling_and_has_the_callers_size(
    env: dict[str, str], mydocker: Mydocker, how: str
) -> None:
    """`run -t` and `exec -t` give the command a controlling terminal of the caller's size.

    The terminal relays input, output, Ctrl-C and the exit code.
    """
    argv = ["run", "--rm", "-it", "base", "sh"]
    if how == "exec":
        mydocker("run", "-d", "--name", "web", "base", "sleep", "1000")
        argv = ["exec", "-it", "web", "sh"]
    watched = Watched([*MYDOCKER, *argv], terminal=True, env=env)
    watched.expect("# ")
    watched.type("tty; ls -l /proc/self/fd/0; echo $TERM\n")
    watched.expect("/dev/pts/0")
    watched.expect("xterm")
    _resize(watched, 33, 101)
    watched.type("until test \"$(stty size)\" = '33 101'; do sleep 0.01; done; echo si''zed\n")
    watched.expect("sized")
    # The quotes tell output from echo: the process that prints is the foreground group.
    watched.type("sh -c 'echo up\"\"right; exec sleep 1000'\n")
    watched.expect("upright")
    watched.type("\x03")  # Ctrl-C: the terminal sends SIGINT
    watched.expect("# ")
    watched.type("exit 4\n")
    assert watched.end() == 4


def _resize(watched: Watched, rows: int, columns: int) -> None:
    fcntl.ioctl(watched._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_terminal_output_is_logged(env: dict[str, str], mydocker: Mydocker) -> None:
    """`logs` prints the output that the terminal showed."""
    argv = ["run", "-it", "--name", "web", "base", "sh", "-c", "echo seen; exit 3"]
    watched = Watched([*MYDOCKER, *argv], terminal=True, env=env)
    watched.expect("seen")
    assert watched.end() == 3
    assert "seen" in mydocker("logs", "web").stdout


def test_detached_container_has_a_terminal(mydocker: Mydocker) -> None:
    """With -d -t the command has a terminal, and mydocker logs its output."""
    mydocker("run", "-d", "-t", "--name", "web", "base", "sh", "-c", "tty; exit 3")
    assert mydocker("wait", "web").stdout == "3\n"
    assert mydocker("logs", "web").stdout.strip() == "/dev/pts/0"


def test_logs_follow_ends_with_the_container(env: dict[str, str], mydocker: Mydocker) -> None:
    """`logs -f` prints new output until the container ends."""
    script = "echo first; while ! test -e /go; do sleep 0.01; done; echo last"
    mydocker("run", "-d", "--name", "web", "base", "sh", "-c", script)
    watched = Watched([*MYDOCKER, "logs", "-f", "web"], env=env)
    watched.expect("first\n")
    mydocker("exec", "web", "touch", "/go")
    watched.expect("last\n")
    assert watched.end() == 0


def test_closed_output_pipe_causes_no_error(env: dict[str, str], mydocker: Mydocker) -> None:
    """`mydocker logs | head` prints nothing on standard error."""
    mydocker("run", "--name", "web", "base", "seq", "100000")
    command = f"{' '.join(MYDOCKER)} logs web | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], env=env, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def _parsers(of: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and the parsers of all commands below it."""
    yield of
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _parsers(below)


def test_every_command_and_option_has_help() -> None:
    """Every command and every option has a help text."""
    top = parser().format_help()
    for name in ("run", "ps", "exec", "inspect", "logs", "stop", "rm", "images", "network"):
        assert re.search(rf"^ +{name} ", top, re.MULTILINE)
    for command in _parsers(parser()):
        assert command.description, command.prog
        assert command.format_help()
        silent = [
            action.dest
            for action in command._actions
            if not action.help and not isinstance(action, argparse._SubParsersAction)
        ]
        assert not silent, f"{command.prog}: {silent} without help"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_script_completes_commands(
    env: dict[str, str], mydocker: Mydocker, shell: str
) -> None:
    """Bash completes a command with the generated completion script."""
    script = mydocker("completion", shell).stdout
    assert "mydocker" in script
    assert "unpause" in script
    if shell == "bash":
        ask = "COMP_WORDS=(mydocker unp); COMP_CWORD=1; _shtab_mydocker; echo ${COMPREPLY[@]}"
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == ["unpause"]


def test_completion_without_shtab_names_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error for a missing shtab contains the command that installs it."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main.main(["completion", "bash"]) == 1
    assert "netmodes[completion]" in capsys.readouterr().err


def test_error_without_root_names_alternatives(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a missing root privilege names alternatives, `netmodes lab` among them."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UnsupportedError, match="netmodes lab"):
        Engine(root)


def test_state_directory_on_overlay_is_refused(engine: Engine, root: Path) -> None:
    """A state directory on an overlay is refused, and the error names that cause.

    The kernel reports only EINVAL.
    """
    for name in ("lower", "upper", "work", "merged"):
        (root / name).mkdir()
    options = f"lowerdir={root}/lower,upperdir={root}/upper,workdir={root}/work"
    mount("overlay", f"{root}/merged", "overlay", 0, options)
    try:
        inner = Engine(root / "merged")
        with pytest.raises(UnsupportedError, match="is on an overlay itself"):
            inner.run("base", ["true"], network="none")
    finally:
        until(lambda: not inner.containers(), "the container is removed")
        umount(f"{root}/merged")
