"""Execution of an additional command in a running container.

```
engine ── fork ── porter ── spawn ── command
                  enters every       may take a terminal,
                  namespace of       another user; execs
                  pid 1, leaves its
                  capabilities, waits
```

The pid namespace takes effect only for children, hence the second process. The porter exits
with the command's exit code.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    PR_SET_DUMPABLE,
    prctl,
    setns,
)
from runtime.container.start import Descriptors
from runtime.errors import ConflictError, UnsupportedError
from runtime.init import init, process, seccomp, security, status_pipe, terminal
from runtime.init.process import Command, Stdio
from runtime.init.status_pipe import InitReport

_EVERY_NAMESPACE = (
    CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP
)


class RunningExec(NamedTuple):
    """A command that is being executed in a container.

    `porter` is a child process of the caller and exits with the exit code of the command. `pid` is
    the command's pid in the caller's pid namespace. `console` is the master of its terminal or -1.
    """

    porter: int
    pid: int
    console: int = -1

    def wait(self) -> int:
        """Wait until the command ends; return its exit code, or 128 plus its signal's number."""
        _, raw = os.waitpid(self.porter, 0)
        code = os.waitstatus_to_exitcode(raw)
        return code if code >= 0 else 128 - code


class ExecResult(NamedTuple):
    """Exit code and output of a command executed in a container."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def spawn(handle: int, command: Command, *, tty: bool, stdio: Stdio) -> RunningExec:
    """Execute a command in the container whose pid 1 the pidfd `handle` refers to.

    Return once it is being executed; raise `CommandError` if it cannot be executed.
    """
    with Descriptors() as open_here:
        report, report_in = open_here.pipe()
        console, far_console = open_here.socketpair() if tty else (-1, -1)
        porter = init.fork()
        if not porter:
            try:
                keep = {report_in, handle, *stdio} | ({far_console} if tty else set())
                init.forget_parent(keep)
                _enter(handle)
                os.close(handle)
                _start_command(command, stdio, report=report_in, console=far_console)
            except BaseException as error:
                status_pipe.send_error(report_in, error)
            finally:
                os._exit(126)
        open_here.close(report_in)
        open_here.close(far_console)
        reader = InitReport(report)
        try:
            pid = reader.pid()
            reader.end()
        except BaseException:
            os.waitpid(porter, 0)
            raise
        return RunningExec(porter, pid, terminal.receive(console) if tty else -1)


def _enter(handle: int) -> None:
    """Enter every namespace of the container; refuse a root that is still the caller's.

    A container with a wrong root file system must not allow commands to run as root on the host's
    file system.
    """
    outside = os.stat("/")
    try:
        setns(handle, _EVERY_NAMESPACE)
    except ProcessLookupError:
        raise ConflictError("enter the container", "the container has just stopped") from None
    inside = os.stat("/")
    if (inside.st_dev, inside.st_ino) == (outside.st_dev, outside.st_ino):
        raise UnsupportedError(
            "enter the container", "its root directory is the host's root directory"
        )


def _start_command(command: Command, stdio: Stdio, *, report: int, console: int) -> NoReturn:
    if console >= 0:
        master, slave = os.openpty()
        terminal.copy_size(stdio.stdin, master)
        terminal.send(console, master)
        os.close(master)
        os.close(console)
        stdio = Stdio(slave, slave, slave)
    # Until exec the memory is a copy of the caller's: no process in the container may read it.
    prctl(PR_SET_DUMPABLE, 0)
    seccomp.load(command.filter)
    security.drop_capabilities(guarded=False, wanted=command.capabilities)
    own = (stdio.stdin,) if console >= 0 else ()
    pid = process.begin(command, stdio, tty=console >= 0, own=own, report=report)
    status_pipe.send_pid(report, pid)
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    _, raw = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(raw)
    os._exit(code if code >= 0 else 128 - code)


def completed(begin: Callable[[Stdio], RunningExec], timeout: float | None) -> ExecResult:
    """Run a command to its end without input; `begin` starts it with the given streams.

    Kill the command and raise `TimeoutError` after `timeout` seconds.
    """
    with Descriptors() as open_here:
        (out, out_in), (err, err_in) = open_here.pipe(), open_here.pipe()
        running = begin(Stdio(open_here.file(os.devnull, os.O_RDONLY), out_in, err_in))
        for fd in (out_in, err_in):
            open_here.close(fd)
        stdout, stderr = _captured(running, (out, err), timeout)
        return ExecResult(running.wait(), stdout, stderr)


def _captured(
    run: RunningExec, outputs: tuple[int, int], timeout: float | None
) -> tuple[bytes, bytes]:
    """Return the output of the command until it ends, from the read ends of its two pipes.

    Children that outlive the command may hold the pipes open; the call does not wait for them.
    Kill the command and raise `TimeoutError` after `timeout` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    found = {fd: bytearray() for fd in outputs}
    ended = os.pidfd_open(run.porter)
    poll = select.poll()
    for fd in (ended, *outputs):
        poll.register(fd, select.POLLIN)
    for fd in outputs:
        os.set_blocking(fd, False)
    try:
        while True:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = [fd for fd, _ in poll.poll(wait)]
            if not ready:
                os.kill(run.pid, signal.SIGKILL)
                run.wait()
                raise TimeoutError(f"the command did not end within {timeout} s and was killed")
            if ended in ready:
                for fd in outputs:
                    _drain(fd, found[fd])
                return bytes(found[outputs[0]]), bytes(found[outputs[1]])
            for fd in ready:
                if not _drain(fd, found[fd]):
                    poll.unregister(fd)
    finally:
        os.close(ended)


def _drain(fd: int, into: bytearray) -> bool:
    """Read the bytes that are available now; return False at end of file."""
    try:
        while data := os.read(fd, 65536):
            into += data
    except BlockingIOError:
        return True
    return False
