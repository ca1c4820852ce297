"""Tests that each signal reaches the process in the sandbox once.

The waiting process is the one outside, which relays signals to the process inside.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.programs import WITHIN, Watched, python, run

COUNTING = """
import os, signal
from harness.sandbox import sandbox

def count():
    got = []
    wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1]
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    print("ready", flush=True)
    while signal.SIGUSR1 not in got:
        got.append(signal.sigwait(wanted))
        print("got", signal.Signals(got[-1]).name, flush=True)
    print("all", *(signal.Signals(number).name for number in got), flush=True)
    return 0

raise SystemExit(sandbox.run(count))
"""
"""Prints every signal it gets, up to SIGUSR1, which the tests send last: signals are
relayed in order, so that a second copy of an earlier one would come before it."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def end_of_count(program: Watched) -> list[str]:
    """Send the last signal, and return the names of all signals that have arrived."""
    os.kill(program.process.pid, signal.SIGUSR1)
    program.expect("all ")
    names = program.expect("\n").split()
    assert program.end() == 0, program.output
    return names


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["the process", "its group"])
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_to_the_waiting_process_arrives_once(
    number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    """A signal to the waiting process arrives inside the sandbox once.

    If the signal is sent to the process group, the process inside gets it directly too.
    """
    with Watched(python(COUNTING)) as program:
        program.expect("ready")
        send(program.process.pid, number)
        program.expect(f"got {number.name}")
        assert end_of_count(program) == [number.name, "SIGUSR1"]


@pytest.mark.parametrize(("key", "name"), [("\x03", "SIGINT"), ("\x1c", "SIGQUIT")])
def test_terminal_key_sends_one_signal_to_the_sandbox(key: str, name: str) -> None:
    """The signal of Ctrl-C or Ctrl-Backslash arrives inside the sandbox once."""
    with Watched(python(COUNTING), terminal=True) as program:
        program.expect("ready")
        program.type(key)
        program.expect(f"got {name}")
        assert end_of_count(program) == [name, "SIGUSR1"]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGQUIT, signal.SIGINT]
)
def test_signal_that_ends_the_sandboxed_process_ends_the_waiting_one(
    number: signal.Signals,
) -> None:
    """If a signal ends the process inside, the waiting process ends by the same signal."""
    source = f"""
import os, signal
from harness.sandbox import sandbox
sandbox.enter()
signal.signal({int(number)}, signal.SIG_DFL) if {int(number)} != 9 else None
os.kill(os.getpid(), {int(number)})
"""
    with Watched(python(source)) as program:
        assert program.end() == -number


LATE = """
import signal
from harness.sandbox import sandbox
sandbox.enter()
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
print("ready", flush=True)
signal.sigwait({signal.SIGUSR2})
raise SystemExit(5)
"""


def test_late_signal_does_not_hide_the_exit_code() -> None:
    """A signal that is relayed while the process inside ends does not change the exit code."""
    with Watched(python(LATE)) as program:
        program.expect("ready")
        waiter = program.process.pid
        (init,) = children(waiter)
        (caller,) = children(init)
        os.kill(waiter, signal.SIGUSR1)
        await_status(waiter, "ShdPnd:\t0+$")
        os.kill(init, signal.SIGSTOP)
        for number in SIGNALS:
            os.kill(waiter, number)
        await_status(waiter, "ShdPnd:\t0+$")
        os.kill(caller, signal.SIGUSR2)
        await_status(caller, "State:\tZ")
        os.kill(init, signal.SIGCONT)
        assert program.end() == 5, program.output


def children(pid: int) -> list[int]:
    """Return the pids of the children of `pid`."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def await_status(pid: int, pattern: str) -> None:
    """Return when a line of the status of `pid` begins with `pattern` (proc_pid_status(5))."""
    deadline = time.monotonic() + WITHIN
    while not re.search(f"^{pattern}", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
        assert time.monotonic() < deadline, f"process {pid} does not come to {pattern!r}"
        os.sched_yield()


FOREGROUND = """
import os, signal

def foreground():
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
"""

JOB = """
import signal
from harness.sandbox import sandbox
sandbox.enter()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
print("ready", flush=True)
signal.sigwait({signal.SIGCONT})
print("continued", flush=True)
print("read", input(), flush=True)
"""

SHELL_WITH_JOB = f"""
{FOREGROUND}
import subprocess, sys
job = subprocess.Popen([sys.executable, "-c", {JOB!r}], preexec_fn=foreground)
_, status = os.waitpid(job.pid, os.WUNTRACED)
print("stopped by", os.WSTOPSIG(status), flush=True)
os.killpg(job.pid, signal.SIGCONT)
raise SystemExit(job.wait())
"""


def test_job_control_stops_and_continues_a_sandboxed_run() -> None:
    """Ctrl-Z stops a run in a sandbox, and SIGCONT continues it.

    Afterwards it reads input from the terminal.
    """
    with Watched(python(SHELL_WITH_JOB), terminal=True) as program:
        program.expect("ready")
        program.type("\x1a")
        program.expect(f"stopped by {int(signal.SIGTSTP)}")
        program.expect("continued")
        program.type("a line\n")
        program.expect("read a line")
        assert program.end() == 0


SANDBOX_WITH_SHELL = f"""
{FOREGROUND}
import subprocess, sys
from harness.sandbox import sandbox

def shell():
    argv = [sys.executable, "-c", "print('inner', input())"]
    subprocess.run(argv, preexec_fn=foreground, check=True)
    return 0

sandbox.run(shell)
print("outer", input())
"""


def test_terminal_returns_from_a_shell_in_the_sandbox() -> None:
    """When a shell in the sandbox ends, the waiting process has the terminal's foreground."""
    with Watched(python(SANDBOX_WITH_SHELL), terminal=True) as program:
        program.type("one\n")
        program.expect("inner one")
        program.type("two\n")
        program.expect("outer two")
        assert program.end() == 0


KILLED = """
import os, signal
from harness.sandbox import sandbox
sandbox.enter()
if os.fork() == 0:
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if os.fork() == 0:
        os.setsid()
print("there", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_killed_waiting_process_ends_the_sandbox(number: signal.Signals) -> None:
    """If the waiting process is killed, all processes in the sandbox end.

    This holds even if the waiting process was stopped by a signal.
    """
    with Watched(python(KILLED)) as program:
        for _ in range(3):
            program.expect("there")
        program.process.send_signal(number)
        program.process.kill()
        # The output ends when the last process that could write to it is gone.
        assert program.end() == -signal.SIGKILL


def test_cgroup_of_a_killed_run_is_removed_by_the_next() -> None:
    """The cgroup of a killed run is removed by the next run at the latest."""
    with Watched(python(KILLED)) as program:
        program.expect("there")
        program.process.kill()
        program.end()
    # A process that has closed the output may still be leaving the cgroup.
    look = f"""
import os
from harness.sandbox import cgroup, sandbox
group = cgroup.own()
left = group and group / "netmodes-{program.process.pid}"
while left and left.exists() and "populated 1" in (left / "cgroup.events").read_text():
    os.sched_yield()
sandbox.run(lambda: 0)
print(bool(left) and left.exists())
"""
    assert run(python(look)).stdout == "False\n"
