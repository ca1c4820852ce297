"""Tests of a host's commands, daemons and orphans, and of the host's end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from harness.testbench.concurrent import at_once
from harness.world.host import HostDied, HostMachine, quiet_fork
from harness.world.process import OutputTooLong
from tests.support.processes import family, nothing_stays_open
from tests.support.programs import confined, python
from tests.support.programs import run as run_program
from tests.world.hosts import (
    KINDS,
    RESOLVER,
    WITHIN,
    killed,
    look,
    members,
    pids,
    started,
)

# --- run ----------------------------------------------------------------------------


def _add(one: int, *, other: int) -> int:
    return one + other


def test_command_result_has_output_exit_code_and_duration(host: HostMachine) -> None:
    """A command's result has its output, exit code and duration.

    The exit code of a signal is its negative number. Bytes that are not UTF-8 are replaced.
    """
    before = time.time()
    done = host.run(
        ["sh", "-c", "read line; echo $line $COLOUR; echo oops >&2; exit 3"],
        stdin=b"hello\n",
        env={"COLOUR": "red"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "hello red\n", "oops\n")
    assert done.argv[:2] == ("sh", "-c")
    assert before <= done.at <= done.at + done.seconds <= time.time()
    assert host.run(["sh", "-c", "kill -9 $$"]).returncode == -9
    assert host.run(["printf", r"a\377b"]).stdout == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("argv", "kind"), [(["no-such-command"], FileNotFoundError), (["/etc/hosts"], PermissionError)]
)
def test_command_that_cannot_start_raises_the_kernels_error(
    host: HostMachine, argv: list[str], kind: type[OSError]
) -> None:
    """If a command or daemon cannot start, the error has the kernel's reason and the name."""
    with pytest.raises(kind, match=argv[0]):
        host.run(argv)
    with pytest.raises(kind, match=argv[0]):
        host.spawn(argv, log="/run/x")
    with pytest.raises(FileNotFoundError, match="/nowhere/x"):
        host.spawn(["true"], log="/nowhere/x")
    assert host.call(look)["processes"] == [1, 2]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo said; echo moaned >&2; sleep 1000 & sleep 1000", r"'said\\nmoaned\\n'"),
        ("echo said; setsid sleep 1000 & exit 0", r"left a process behind.*'said\\n'"),
    ],
    ids=["hangs", "orphan holds its output"],
)
def test_command_timeout_kills_the_process_group(
    doomed: HostMachine, script: str, said: str
) -> None:
    """A timeout kills the command's process group; the error has the output up to then.

    An orphan in another group does not prolong the wait.
    """
    with pytest.raises(TimeoutError, match=rf"sh -c .* within 1\.0 s.*{said}"):
        doomed.run(["sh", "-c", script], timeout=1.0)
    if "setsid" not in script:
        assert doomed.call(_wait_until_alone) == [1, 2]


def _wait_until_alone() -> list[int]:
    """Wait until only init and the server remain; return all processes."""
    deadline = time.monotonic() + WITHIN
    while True:
        found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        if len(found) == 2 or time.monotonic() > deadline:
            return found
        os.sched_yield()


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_command_with_endless_output_is_killed(doomed: HostMachine, stream: str) -> None:
    """A command that prints without end is killed before its timeout.

    The error has the beginning of the output.
    """
    began = time.monotonic()
    with pytest.raises(OutputTooLong, match=r"sh -c .* printed more than 4 MiB.*'ha\\nha.* killed"):
        doomed.run(["sh", "-c", f"yes ha {stream}"], timeout=600)
    assert time.monotonic() - began < WITHIN
    assert doomed.call(_wait_until_alone) == [1, 2]


def test_command_input_may_exceed_the_pipe_buffer(host: HostMachine) -> None:
    """A command may get more input than a pipe buffer holds, while its output is read.

    The command may also leave input unread.
    """
    text = b"0123456789abcdef" * 40_000
    assert host.run(["cat"], stdin=text).stdout.encode() == text
    assert host.run(["head", "-c", "2"], stdin=text).stdout == "01"


# --- spawn --------------------------------------------------------------------------


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _await_text(path: str, text: str) -> bool:
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            if text in file.read():
                return True
        os.sched_yield()
    return False


def test_daemon_survives_the_call_and_is_reaped_by_init(doomed: HostMachine) -> None:
    """A daemon survives the call that starts it, and writes to its log.

    After its end the host's init reaps it.
    """
    script = "echo up $COLOUR; echo moan >&2; exec sleep 1000"
    pid = doomed.spawn(["sh", "-c", script], log="/run/daemon.log", env={"COLOUR": "red"})
    assert doomed.call(_await_text, "/run/daemon.log", "up red\nmoan\n")
    assert doomed.call(_parent, pid) == 1
    with doomed.netns_of(pid) as space:
        assert space == doomed.netns
    assert doomed.call(killed, pid)
    with pytest.raises(FileNotFoundError):
        doomed.netns_of(pid)


# --- the end ------------------------------------------------------------------------


def test_host_stop_ends_all_processes(doomed: HostMachine) -> None:
    """Init, server, daemons and their children have ended when `stop` returns."""
    doomed.spawn(["sh", "-c", "sleep 1000 & setsid sleep 1000"], log="/run/x")
    inside = members(doomed.pid)
    assert len(inside) >= 3
    pid = doomed.pid
    doomed.stop()
    assert doomed.pid == 0
    assert not set(inside) & set(pids())
    assert pid not in pids()
    doomed.stop()
    with pytest.raises(HostDied, match="_add"):
        doomed.call(_add, 1, other=1)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("who", ["init", "server"])
def test_call_to_a_dead_host_raises_an_error(doomed: HostMachine, who: str) -> None:
    """A call to a dead host raises an error with the host's name.

    The host can still be stopped.
    """
    doomed.spawn(["sleep", "1000"], log="/run/x")
    inside, end = members(doomed.pid), os.pidfd_open(doomed.pid)
    if who == "init":
        os.kill(doomed.pid, signal.SIGKILL)
    with pytest.raises(HostDied, match=r"the host ended during _die"):
        doomed.call(_die)
    with pytest.raises(HostDied, match=r"the host ended during run"):
        doomed.run(["true"])
    assert select.select([end], [], [], WITHIN)[0], "init is still there"
    os.close(end)
    doomed.stop()
    assert not set(inside) & set(pids())


def _pause() -> None:
    with open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write("paused")
    signal.pause()


@pytest.mark.parametrize("busy", [False, True])
def test_host_ends_when_its_parent_is_killed(*, busy: bool) -> None:
    """All processes of the host end when the host's parent is killed, even during a call."""
    read, write = os.pipe()
    parent = quiet_fork()
    if parent == 0:
        host = started()
        host.spawn(["sleep", "1000"], log="/run/x")
        os.write(write, b"%d\n" % host.pid)
        if busy:
            host.call(_pause)
        signal.pause()
    inside = members(int(os.read(read, 64)))
    ends = [os.pidfd_open(member) for member in inside]
    assert len(ends) == 3
    deadline = time.monotonic() + WITHIN
    while busy and not any(_name(pid) == "paused" for pid in inside):
        assert time.monotonic() < deadline
        os.sched_yield()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    for end in ends:
        assert select.select([end], [], [], WITHIN)[0], "still there"
    for number in (read, write, *ends):
        os.close(number)


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()


def _namespaces(host: HostMachine) -> dict[str, object]:
    inodes = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in KINDS}
    return {**inodes, "calls": host.call(os.getpid) == os.getpid()}


def test_process_enters_all_namespaces_of_the_host(host: HostMachine) -> None:
    """A process that enters the host is in all its namespaces.

    Function calls to the host then run in this process.
    """
    expected = {kind: host.namespace(kind)[1] for kind in KINDS}
    assert at_once(host, [partial(_namespaces, host)]) == [{**expected, "calls": True}]


def test_failed_host_start_leaves_no_process() -> None:
    """An error during a host's start is raised in the caller, and no process is left."""
    hosts = {"::1": "Z\N{LATIN SMALL LETTER U WITH DIAERESIS}rich"}
    processes, space = family(), os.stat("/proc/self/ns/pid_for_children").st_ino
    with nothing_stays_open(), pytest.raises(UnicodeEncodeError) as caught:
        HostMachine.start(resolver=RESOLVER, hosts=hosts)
    assert "in _own_etc" in caught.value.__notes__[0]
    assert family() <= processes  # a process that was ending may be gone
    assert os.stat("/proc/self/ns/pid_for_children").st_ino == space


def test_host_start_in_foreign_pid_namespace_is_refused() -> None:
    """A host does not start if setns() back to the former pid namespace is not permitted.

    The refusal comes before any change.
    """
    source = """
import os
from harness.world.host import HostMachine
try:
    HostMachine.start(resolver="203.0.113.53", hosts={})
except PermissionError as error:
    print(error)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child")
"""
    done = run_program(confined(python(source)))
    refusal, left = done.stdout.splitlines()
    assert "setns(" in refusal
    assert left == "no child"
