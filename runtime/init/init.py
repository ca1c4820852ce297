"""From fork to the container's command: three processes, one after the other.

```
engine ── fork ── outer ── fork ── pid 1 ── fork ── command (pid 2)
                  leaves the        makes the         execs
                  host's            root file
                  namespaces,       system, waits,
                  reports pid 1,    then collects
                  exits             output and children
```

Outer exits at once, so that pid 1 becomes a child of the host's init and outlives the caller.
Pid 1 waits for one byte on `go`, which the engine writes when the network is set up. If the
engine dies before that, the pipe closes and pid 1 exits.

This code runs after a fork: no imports, no logging, no return into the caller's code.
Errors are sent over a pipe (`runtime.init.status_pipe`). If the pipe ends without an error,
the command was executed.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import warnings
from collections.abc import Iterable
from typing import Final, NamedTuple, NoReturn

from linux.proc import ProcessStat
from linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    PR_SET_DUMPABLE,
    PR_SET_NAME,
    prctl,
    sethostname,
    setns,
    unshare,
)
from runtime.init import process, rootfs, seccomp, security, status_pipe, terminal
from runtime.init.process import Command, Stdio
from runtime.init.supervise import OutputStream, hold_signals, supervise
from runtime.network import sysctl

TITLE: Final = b"mydocker-init"
GO: Final = b"1"
"""Byte that the engine writes to `go` when the command may run."""

NAMESPACES: Final = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWCGROUP
"""Namespaces that every container gets; the caller creates the network namespace."""


class InitSpec(NamedTuple):
    """Input of a new container's processes. Numbers are file descriptors.

    `netns` is -1 to stay in the host's network namespace; `console` is a socket that takes the
    terminal's master, or -1. Without `stdio` output goes to the log only. Pid 1 writes to the pipe
    `lost` when the caller takes no more output; it may be -1. If the container `publishes` ports,
    `go` is a socket that carries the descriptors that pid 1 keeps open as long as it lives.
    """

    rootfs: rootfs.Rootfs
    hostname: str
    command: Command
    sysctls: dict[str, str]
    tty: bool
    report: int
    go: int
    log: int
    exit: int
    netns: int = -1
    console: int = -1
    stdio: Stdio | None = None
    lost: int = -1
    read_only: bool = False
    publishes: bool = False

    @property
    def descriptors(self) -> set[int]:
        """Descriptors that must stay open in the children."""
        own = {self.report, self.go, self.log, self.exit, self.netns, self.console, self.lost}
        return {fd for fd in own | set(self.stdio or ()) if fd >= 0}


def child(launch: InitSpec) -> NoReturn:
    """Run the code of the first forked child; never return."""
    try:
        _outer(launch)
    except BaseException as error:
        status_pipe.send_error(launch.report, error)
    finally:
        os._exit(1)


def fork() -> int:
    """Fork (fork(2)) without Python's warning about a caller with several threads.

    The warning is about locks that another thread holds at the time of the fork. The child needs
    none of those locks: if the caller has other threads, it imports the child's modules before the
    fork. Children end in exec or _exit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def forget_parent(keep: Iterable[int]) -> None:
    """Drop inherited state: descriptors, signal handlers, session, garbage collection."""
    gc.disable()  # a collection would copy every page that is still shared
    os.setsid()
    close_others(keep)
    default_signals()


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor except 0, 1, 2 and those in `keep`."""
    last = 2
    for fd in sorted(fd for fd in keep if fd > last):
        if fd > last + 1:  # an empty range would mean "all" to close_range(2)
            os.closerange(last + 1, fd)
        last = fd
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))


def default_signals() -> None:
    """Set all signals to their default actions and unblock them."""
    for number in range(1, signal.NSIG):
        if signal.getsignal(number) not in (signal.SIG_DFL, None):  # None: not set by Python
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _outer(launch: InitSpec) -> None:
    forget_parent(launch.descriptors)
    unshare(NAMESPACES)
    if launch.netns >= 0:
        setns(launch.netns, CLONE_NEWNET)
        os.close(launch.netns)
    pid = os.fork()
    if pid:
        status_pipe.send_pid(launch.report, pid)
        os._exit(0)
    set_title(TITLE)
    pid_1(launch)


def pid_1(launch: InitSpec) -> NoReturn:
    """Run as the container's first process, in its namespaces, until the command has ended."""

    def protect() -> None:
        sysctl.apply(launch.sysctls)
        security.hide_paths()

    rootfs.enter(launch.rootfs, protect, read_only=launch.read_only)
    sethostname(launch.hostname)
    os.umask(0o022)
    if not os.path.isdir(launch.command.workdir):
        os.makedirs(launch.command.workdir)
    if launch.read_only:
        rootfs.lock()
    seccomp.load(launch.command.filter)
    security.drop_capabilities(guarded=True, wanted=launch.command.capabilities)
    streams, inside = _connect(launch)
    own = tuple(set(inside) if launch.tty else inside[1:])
    hold_signals()
    _await_go(launch)  # all steps that need no network are done
    os.close(launch.go)
    pid = process.begin(launch.command, inside, tty=launch.tty, own=own, report=launch.report)
    os.close(launch.report)
    nothing = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(nothing, fd)
    for fd in {nothing, *inside}:
        os.close(fd)
    # The host's tools may read /proc/PID/ns of pid 1; no process inside can (see
    # `drop_capabilities`).
    prctl(PR_SET_DUMPABLE, 1)
    supervise(pid, streams, log=launch.log, exit_record=launch.exit)


def _await_go(launch: InitSpec) -> None:
    """Wait for `GO` and the descriptors that come with it; exit if the engine has died before.

    Pid 1 must not keep the descriptors if the engine died before pid 1's pid was recorded.
    """
    if not launch.publishes:
        if os.read(launch.go, 1) != GO:
            os._exit(1)
        return
    held = status_pipe.receive_descriptors_until(launch.go, GO)
    if held is None:
        os._exit(1)
    status_pipe.send_held(launch.report, held)


def _connect(launch: InitSpec) -> tuple[list[OutputStream], Stdio]:
    """Return the output streams that pid 1 reads, and the command's own standard streams."""
    if launch.tty:
        master, slave = os.openpty()
        inside = Stdio(slave, slave, slave)
        if launch.stdio is not None:
            terminal.copy_size(launch.stdio.stdin, master)
        if launch.console >= 0:
            terminal.send(launch.console, master)
            os.close(master)
            os.close(launch.console)
            return [], inside
        return [OutputStream("stdout", master, -1)], inside
    out, err = os.pipe(), os.pipe()
    if launch.stdio is None:
        stdin = os.open("/dev/null", os.O_RDONLY)
        copies = (-1, -1)
    else:
        stdin = os.dup(launch.stdio.stdin)
        copies = (os.dup(launch.stdio.stdout), os.dup(launch.stdio.stderr))
        for fd in set(launch.stdio):
            os.close(fd)
    streams = [
        OutputStream("stdout", out[0], copies[0], launch.lost),
        OutputStream("stderr", err[0], copies[1], launch.lost),
    ]
    if launch.lost >= 0:
        for stream in streams:
            stream.peers = streams
    return streams, Stdio(stdin, out[1], err[1])


def set_title(title: bytes) -> None:
    """Set the title of this process and of its forks.

    The title overwrites the caller's command line, which the container could otherwise read.
    """
    start, end = ProcessStat.of("/proc/self").arguments
    if size := end - start:
        ctypes.memmove(start, title[: size - 1].ljust(size, b"\0"), size)
    name = ctypes.create_string_buffer(title)
    prctl(PR_SET_NAME, ctypes.addressof(name))
