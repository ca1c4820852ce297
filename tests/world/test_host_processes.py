"""Commands, daemons and orphans in a host, and its end, by whatever death."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

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
    namespace,
    pids,
    started,
)

# --- run ----------------------------------------------------------------------------


def _add(one: int, *, other: int) -> int:
    return one + other


def test_a_command_runs_to_its_end(host: HostMachine) -> None:
    """What it is given, said, and how it ended; its directory and its terminal are its own."""
    done = host.run(
        ["sh", "-c", "read line; echo $line $COLOUR; echo oops >&2; exit 3"],
        stdin=b"hello\n",
        env={"COLOUR": "red"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "hello red\n", "oops\n")
    assert done.argv[:2] == ("sh", "-c")
    assert 0 < done.seconds < WITHIN


def test_a_signal_shows_in_the_return_code(host: HostMachine) -> None:
    """A command that a signal ended has its negative number."""
    assert host.run(["sh", "-c", "kill -9 $$"]).returncode == -9


def test_output_that_is_no_text_comes_through(host: HostMachine) -> None:
    """Bytes that are no UTF-8 are replaced, not an error."""
    assert host.run(["printf", r"a\377b"]).stdout == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("argv", "kind"), [(["no-such-command"], FileNotFoundError), (["/etc/hosts"], PermissionError)]
)
def test_a_command_that_cannot_be_started_raises(
    host: HostMachine, argv: list[str], kind: type[OSError]
) -> None:
    """The error is the kernel's, with the name of the command, for daemons too."""
    with pytest.raises(kind, match=argv[0]):
        host.run(argv)
    with pytest.raises(kind, match=argv[0]):
        host.spawn(argv, log="/run/x")
    with pytest.raises(FileNotFoundError, match="/nowhere/x"):
        host.spawn(["true"], log="/nowhere/x")
    assert host.call(look)["processes"] == [1, 2]


def test_a_command_that_takes_too_long_is_killed_with_its_children(doomed: HostMachine) -> None:
    """The error carries what it had said, and of its process group nobody is left."""
    script = "echo said; echo moaned >&2; sleep 1000 & sleep 1000"
    with pytest.raises(TimeoutError, match=r"sh -c .* within 1\.0 s.*'said\\nmoaned\\n'"):
        doomed.run(["sh", "-c", script], timeout=1.0)
    assert doomed.call(_wait_until_alone) == [1, 2]


def _wait_until_alone() -> list[int]:
    """Every process, once there are only two or time is up: orphans are reaped by init."""
    deadline = time.monotonic() + WITHIN
    while True:
        found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        if len(found) == 2 or time.monotonic() > deadline:
            return found
        os.sched_yield()


def test_what_keeps_the_output_open_is_not_waited_for(doomed: HostMachine) -> None:
    """A command that has left something behind in another group ends all the same, as too late."""
    with pytest.raises(TimeoutError, match=r"left something behind.*'said\\n'"):
        doomed.run(["sh", "-c", "echo said; setsid sleep 1000 & exit 0"], timeout=1.0)
    assert doomed.call(_add, 1, other=1) == 2


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_a_command_that_prints_without_end_is_killed(doomed: HostMachine, stream: str) -> None:
    """Long before its time, with its children; how it began is told, and no more is kept."""
    began = time.monotonic()
    with pytest.raises(OutputTooLong, match=r"sh -c .* printed more than 4 MiB.*'ha\\nha.* killed"):
        doomed.run(["sh", "-c", f"yes ha {stream}"], timeout=600)
    assert time.monotonic() - began < WITHIN
    assert doomed.call(_wait_until_alone) == [1, 2]


def test_what_it_is_given_may_be_longer_than_a_pipe(host: HostMachine) -> None:
    """And what it prints meanwhile; who does not read on does not matter."""
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


def test_a_daemon_lives_on_and_init_reaps_it(doomed: HostMachine) -> None:
    """It writes into its log, is a child of init, survives other calls, and leaves no zombie."""
    script = "echo up $COLOUR; echo moan >&2; exec sleep 1000"
    pid = doomed.spawn(["sh", "-c", script], log="/run/daemon.log", env={"COLOUR": "red"})
    assert doomed.call(_await_text, "/run/daemon.log", "up red\nmoan\n")
    assert doomed.call(_parent, pid) == 1
    with doomed.netns_of(pid) as space:
        assert space == doomed.netns
    assert doomed.call(killed, pid)
    with pytest.raises(FileNotFoundError):
        doomed.netns_of(pid)


def _leave_orphan() -> int:
    """Start a process whose parent ends at once; return its pid."""
    read, write = os.pipe()
    if os.fork() == 0:
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(write, b"%d" % child)
        os._exit(0)
    os.wait()
    return int(os.read(read, 16))


def test_orphans_are_reaped(doomed: HostMachine) -> None:
    """An orphan inside becomes a child of init and does not stay a zombie."""
    orphan = doomed.call(_leave_orphan)
    assert doomed.call(_parent, orphan) == 1
    assert doomed.call(killed, orphan)


# --- the end ------------------------------------------------------------------------


def test_stop_leaves_no_process(doomed: HostMachine) -> None:
    """Init, server, daemons and what they have started are gone when `stop` returns."""
    doomed.spawn(["sh", "-c", "sleep 1000 & setsid sleep 1000"], log="/run/x")
    inside = members(doomed)
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
def test_a_host_that_died_is_noticed(doomed: HostMachine, who: str) -> None:
    """A call to a host that is gone, or goes during the call, says so; stopping it still works."""
    doomed.spawn(["sleep", "1000"], log="/run/x")
    inside, end = members(doomed), os.pidfd_open(doomed.pid)
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
def test_a_killed_parent_takes_it_along(*, busy: bool) -> None:
    """When the process that started it is killed, it ends with all that is in it, busy or not."""
    read, write = os.pipe()
    parent = quiet_fork()
    if parent == 0:
        host = started()
        host.spawn(["sleep", "1000"], log="/run/x")
        os.write(write, b"%d\n" % host.pid)
        if busy:
            host.call(_pause)
        signal.pause()
    inside = _with_descendants(int(os.read(read, 64)))
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


def _with_descendants(init: int) -> list[int]:
    space = namespace(init)
    return [pid for pid in pids() if namespace(pid) == space]


def _enter_andlook(host: HostMachine) -> dict[str, object]:
    """Return the namespaces of a child of a process that has entered the host."""
    host.enter()
    links = [f"/proc/self/ns/{kind}" for kind in KINDS]
    child = subprocess.run(["readlink", *links], capture_output=True, check=True, text=True)
    inodes = [int(line.partition("[")[2].rstrip("]")) for line in child.stdout.split()]
    return {**dict(zip(KINDS, inodes, strict=True)), "calls": host.call(os.getpid) == os.getpid()}


def test_entering_is_for_good(host: HostMachine) -> None:
    """A process that enters is in every namespace, its children too, and calls by itself."""
    read, write = os.pipe()
    child = quiet_fork()
    if child == 0:
        try:
            os.write(write, pickle.dumps(_enter_andlook(host)))
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        seen = pickle.load(pipe)
    os.waitpid(child, 0)
    assert seen == {**{kind: host.namespace(kind)[1] for kind in KINDS}, "calls": True}


def test_a_start_that_fails_leaves_nothing() -> None:
    """An error during setup is raised here, and no process stays behind."""
    hosts = {"::1": "Z\N{LATIN SMALL LETTER U WITH DIAERESIS}rich"}
    processes, space = family(), os.stat("/proc/self/ns/pid_for_children").st_ino
    with nothing_stays_open(), pytest.raises(UnicodeEncodeError) as caught:
        HostMachine.start(resolver=RESOLVER, hosts=hosts)
    assert "in _own_etc" in caught.value.__notes__[0]
    assert family() <= processes  # who was on the way out before may be gone
    assert os.stat("/proc/self/ns/pid_for_children").st_ino == space


def test_who_may_not_come_back_is_refused() -> None:
    """In a pid namespace that belongs to others a start is refused before anything happens."""
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
