"""Private namespaces for a whole run, so that the run changes nothing on the machine.

The caller is the process that enters the sandbox. It forks. The *waiter* stays outside; it passes
signals in and the exit status out. Inside, pid 1 is a small init that reaps orphans. Pid 2 is the
caller, which continues as the same process image, without execve(2).

```
waiter ── (stepping stone: makes user and pid namespace, then exits)
              └── init, pid 1: the other namespaces, /proc, /sys, /run
                    └── the caller, pid 2
```

A socket pair connects waiter and init. Init exits when the socket shows that the waiter is gone.
When init exits, the kernel ends every process inside, and with them every namespace, mount, link
and rule. The sandbox's network namespace has only `lo`, which is down.

The reasons for this design are in `docs/decisions/0001-fork-in-the-controller.md`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from harness.sandbox import cgroup, namespaces
from harness.sandbox.namespaces import STEPS, SandboxError, step
from linux import syscalls as sys_

__all__ = ["STEPS", "SandboxError", "Waiter", "enter", "inside", "require", "run"]

OUTSIDE = "NETMODES_OUTSIDE"
"""Environment variable with the waiter's pid and the inode of its user namespace, as seen outside.

Processes that enter the sandbox need both."""

_RELAYED = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)


@dataclass(frozen=True, slots=True)
class Waiter:
    """Request channel from the caller inside the sandbox to the waiter outside."""

    _channel: socket.socket

    def take_terminal_back(self) -> None:
        """Let the waiter put the caller's process group into the terminal's foreground, and wait.

        A shell inside had put its own group there. Only outside does the caller's group have an id.
        """
        self._channel.send(b"!")
        self._channel.recv(1)


def inside() -> bool:
    """Return whether the caller is in a sandbox, which an outer process may have made."""
    return namespaces.MARK.exists()


def require() -> None:
    """Raise `SandboxError` unless the caller is in a sandbox.

    Use this check before any change of links, routes or mounts.
    """
    if not inside():
        raise SandboxError(
            "sandbox",
            errno.EPERM,
            "this would change the machine itself. Leave out --sandbox=never, and run "
            "`netmodes doctor` to check the machine",
        )


def enter() -> Waiter:
    """Continue inside a new sandbox; the calling process stays outside as the waiter.

    The function returns only inside, as pid 2, with the caller's memory and file descriptors.
    Outside it never returns: the waiter ends with the exit code or signal of the process inside.
    Call it from the main thread. If the machine refuses, it raises `SandboxError` in the calling
    process, with nothing changed.
    """
    waiter = f"{os.getpid()} {os.stat('/proc/self/ns/user').st_ino}"
    status = _fork_into_sandbox()
    if isinstance(status, int):
        _end_like(status)
    os.environ[OUTSIDE] = waiter
    return status


def run(function: Callable[[], int]) -> int:
    """Call `function` inside a new sandbox and return its exit code.

    The exit code is the result of `function`, 1 if it raises an exception, or -N if signal N ends
    it. The traceback of an exception goes to standard error. Raises the errors of `enter`.
    """
    status = _fork_into_sandbox()
    if isinstance(status, Waiter):
        _call_and_exit(function)
    return os.waitstatus_to_exitcode(status)


def _fork_into_sandbox() -> int | Waiter:
    """Fork into a new sandbox.

    Inside, return the `Waiter`. Outside, return the wait status of the process inside, after its
    end.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # a copied buffer would be written twice
    ids = None if namespaces.privileged() else namespaces.Ids.of_caller()
    outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    served, requesting = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # With SIGCHLD ignored the kernel discards exit statuses.
    was_child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    was_blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {*_RELAYED, signal.SIGCHLD})
    sys_.prctl(sys_.PR_SET_CHILD_SUBREAPER, 1)
    group = cgroup.create()
    stone = None
    try:
        stone = _fork()
        if stone == 0:
            outer.close()
            _descend(inner, ids, group)
            return Waiter(requesting)
        inner.close()
        requesting.close()
        return _wait(_see_in(stone, outer, ids), outer, served, was_blocked)
    finally:
        signal.signal(signal.SIGCHLD, was_child)
        signal.pthread_sigmask(signal.SIG_SETMASK, was_blocked)
        inner.close()
        outer.close()
        served.close()
        if stone != 0:
            requesting.close()
            sys_.prctl(sys_.PR_SET_CHILD_SUBREAPER, 0)
            if group is not None:
                cgroup.remove(group)


def _fork() -> int:
    with warnings.catch_warnings():
        # The other threads stay with the waiter and do not run in the child.
        warnings.filterwarnings("ignore", r".*multi-threaded.*", DeprecationWarning)
        return os.fork()


# --- outside ---------------------------------------------------------------


def _see_in(stone: int, channel: socket.socket, ids: namespaces.Ids | None) -> int:
    """Map the ids of the new processes and wait for init; return its pid, as seen outside."""
    child, failure = (
        stone,
        ["failed", "sandbox", str(errno.ECHILD), "a process ended before the sandbox was ready"],
    )
    while message := channel.recv(4096):
        match message.decode().split("\0"):
            case ["map"] if ids is not None:
                try:
                    ids.write(stone)
                except OSError as error:
                    failure = ["failed", "id maps", str(error.errno), str(error)]
                    break
                channel.send(b"mapped")
            case ["init", pid]:
                os.waitpid(stone, 0)
                child = int(pid)
                channel.send(b"known")
            case ["ready"]:
                return child
            case failure:
                break
    channel.close()
    os.waitpid(child, 0)
    _, name, number, reason = failure
    raise SandboxError(name, int(number), reason)


def _wait(
    init: int,
    channel: socket.socket,
    served: socket.socket,
    was_blocked: set[int | signal.Signals],
) -> int:
    """Pass signals in and serve requests until init ends; return the status that init reported."""

    def relay(number: int, _frame: object) -> None:
        with contextlib.suppress(OSError):  # init has just exited
            channel.send(bytes([number]))

    handlers = {number: signal.signal(number, relay) for number in _RELAYED}
    signal.pthread_sigmask(signal.SIG_SETMASK, was_blocked)
    try:
        with contextlib.suppress(OSError):  # the requester has died
            while served.recv(1):  # until init, which has the other end too, is gone
                _take_terminal_back()
                served.send(b"!")
        _, own = os.waitpid(init, 0)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    _take_terminal_back()
    reported = channel.recv(64)
    return int(reported) if reported else own


def _take_terminal_back() -> None:
    """Put the waiter's process group into the terminal's foreground after a shell inside ended.

    The shell made its own group the foreground group. It could not restore the previous group,
    which has no id inside the sandbox.
    """
    with contextlib.suppress(OSError), open("/dev/tty", "rb", buffering=0) as terminal:
        try:
            os.killpg(os.tcgetpgrp(terminal.fileno()), 0)
        except ProcessLookupError:
            was_blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            os.tcsetpgrp(terminal.fileno(), os.getpgrp())
            signal.pthread_sigmask(signal.SIG_SETMASK, was_blocked)


def _end_like(status: int) -> NoReturn:
    """End this process with the exit code or the signal in `status`; flush no buffers."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the other process has dumped core
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


# --- from outside to inside ---------------------------------------------------------


def _descend(channel: socket.socket, ids: namespaces.Ids | None, group: Path | None) -> None:
    """Become pid 2 of the sandbox: the stepping stone forks init, and init forks pid 2.

    Only pid 2 returns from this function.
    """
    try:
        own_cgroup = group is not None and cgroup.join(group)
        if ids is not None:
            with step("user namespace"):
                sys_.unshare(sys_.CLONE_NEWUSER)
            channel.send(b"map")
            _await_answer(channel)
        with step("pid namespace"):
            sys_.unshare(sys_.CLONE_NEWPID)
        init = _fork()
        if init:
            channel.send(f"init\0{init}".encode())
            os._exit(0)
        _await_answer(channel)
        namespaces.furnish(own_cgroup=own_cgroup)
        while signal.sigtimedwait(_RELAYED, 0):  # pid 2 does not get these
            pass
        child = _fork()
        if child:
            channel.send(b"ready")
            _be_init(child, channel)
    except SandboxError as error:
        channel.send(f"failed\0{error.step}\0{error.errno}\0{error.reason}".encode())
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    if ids is not None:
        # pytest names its temporary directory after the user, who must own it.
        os.environ["LOGNAME"] = os.environ["USER"] = ids.name


def _await_answer(channel: socket.socket) -> None:
    if not channel.recv(16):
        os._exit(1)  # the waiter is gone, or has failed


# --- inside ----------------------------------------------------------------


def _be_init(child: int, channel: socket.socket) -> NoReturn:
    """Run as pid 1: reap orphans, pass signals on, and exit when the waiter or the child ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGCHLD})
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        _reap(child, channel)
        if channel.fileno() in dict(poll.poll()):
            message = channel.recv(1)
            if not message:
                os._exit(1)
            # A signal of the terminal, or to the whole group, reaches the child directly:
            # it has then reached init too. Pass on only signals to the waiter alone.
            if signal.sigtimedwait({message[0]}, 0) is None:
                os.kill(child, message[0])
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)


def _reap(child: int, channel: socket.socket) -> None:
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid == child:
            # An exit with signals unread resets the channel and loses the status.
            channel.shutdown(socket.SHUT_RD)
            while channel.recv(1):
                pass
            channel.send(str(status).encode())
            os._exit(0)


def _call_and_exit(function: Callable[[], int]) -> NoReturn:
    code = 1
    try:
        code = int(function())  # os._exit raises on any other type
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
