"""Execution of a command in the namespaces that the caller is already in.

The time of a fork grows with the caller's memory: the kernel copies the page tables, and later each
page that either process writes to. With posix_spawn(3), the child borrows the caller's memory until
it executes. posix_spawn(3) can begin a session and set the standard streams, which is enough for
most containers. Other settings (a terminal, another user, other capabilities) need a forked child,
which applies them step by step before it executes.

In both cases the process is still the runtime's interpreter when the kernel looks up the command,
and `/proc/self/exe` leads to that interpreter, a file of the host. A command that is found through
a magic link of proc(5) is therefore refused (CVE-2019-5736).
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from linux.syscalls import AT_FDCWD, RESOLVE_NO_XDEV, openat2
from runtime.errors import (
    CommandError,
    CommandNotFoundError,
    MydockerError,
    exhausted,
    is_exhausted,
)
from runtime.init import security, status_pipe, terminal, users

_DEEPEST: Final = 6
"""Maximum number of files of a command and its interpreters (`exec_binprm`, fs/exec.c)."""
_FIRST_LINE: Final = 256
"""Length of the first line that the kernel reads, in bytes (BINPRM_BUF_SIZE)."""
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
"""Open without waiting or taking a controlling terminal: the file may be a pipe or a terminal."""
_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_AS_EXECUTED: Final = frozenset(
    {*_MISSING, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV}
)
"""Errors for files that cannot be executed either, or that may be executed but not read."""


class Stdio(NamedTuple):
    """Descriptors of the caller that become a container's standard streams."""

    stdin: int
    stdout: int
    stderr: int


class Command(NamedTuple):
    """A command: argv, directory, user (`""` is root) and upper limit of its capabilities.

    `filter` is the program of `seccomp.program`, which the caller of `begin` loads.
    """

    argv: list[str]
    env: dict[str, str]
    workdir: str
    user: str = ""
    capabilities: int = security.DEFAULT_CAPABILITIES
    filter: bytes = b""


def begin(command: Command, stdio: Stdio, *, tty: bool, own: tuple[int, ...], report: int) -> int:
    """Start a child that executes the command; return its pid.

    `own` are the streams that were created for the command and that its user may open again. An
    error before the execution is raised, or written to `report`, which stays open in the child
    until then.
    """
    special = tty or command.user or command.capabilities != security.DEFAULT_CAPABILITIES
    if not special:
        with suppress(_UnseenError):
            return _spawned(command, stdio)
    pid = os.fork()
    if not pid:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            become(command, stdio, tty=tty, own=own)
        except BaseException as error:
            status_pipe.send_error(report, error)
        finally:
            os._exit(127)
    return pid


def become(command: Command, stdio: Stdio, *, tty: bool, own: tuple[int, ...] = ()) -> None:
    """Replace this process by the command; raise `CommandError` if that is impossible."""
    argv, env, workdir, user, capabilities, _ = command
    os.setsid()
    if tty:
        terminal.take_control(stdio.stdin)
    if capabilities != security.DEFAULT_CAPABILITIES:
        security.forbid(capabilities)
    os.chdir(workdir)
    found, refused = _all_found(argv[0], env)  # as root: the user may have execute permission only
    if user:
        account = users.find(user)
        env.setdefault("HOME", account.home)
        users.become(account, streams=own)
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    os.chdir(workdir)
    refusal: OSError | None = None
    for path in found:
        try:
            os.execve(path, argv, env)  # noqa: S606 - no shell is what we want
        except OSError as error:
            refusal = refusal or error
    raise refused or _explained(argv[0], refusal) from refusal


def _spawned(command: Command, stdio: Stdio) -> int:
    """Execute the command in a child with posix_spawn(3); return its pid."""
    argv, env, workdir, *_ = command
    streams = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(stdio)]
    os.chdir(workdir)  # posix_spawn cannot change the directory
    refusal: OSError | None = None
    try:
        for path in _found(argv[0], env, sees=False):
            try:
                return os.posix_spawn(
                    path, argv, env, file_actions=streams, setsid=True, setsigmask=()
                )
            except OSError as error:  # as execvp(3): continue, and report the first error
                refusal = refusal or error
        raise _explained(argv[0], refusal) from refusal
    finally:
        os.chdir("/")


class _UnseenError(Exception):
    """Error of a check that needs a process in the container's pid namespace.

    A process of another pid namespace has no `/proc/self` in the container's /proc.
    """


def _found(name: str, env: dict[str, str], *, sees: bool) -> Iterator[str]:
    """Yield the existing files of the command in PATH.

    Raise `CommandError` for a command that only a magic link leads to. `sees` is true if the caller
    has a directory in the container's /proc. Otherwise raise `_UnseenError` if the result may
    depend on that directory.
    """
    paths = [name]
    if "/" not in name:
        paths = [f"{directory}/{name}" for directory in os.get_exec_path(env)]
    for path in paths:
        if _is_there(name, path, sees=sees):
            yield path


def _all_found(name: str, env: dict[str, str]) -> tuple[list[str], CommandError | None]:
    """Return the paths of the command, and the error to raise if none of them can be executed."""
    found: list[str] = []
    try:
        for path in _found(name, env, sees=True):
            found.append(path)  # noqa: PERF402 - kept if the next one raises
    except CommandError as error:
        return found, error
    return found, None


def _is_there(name: str, path: str, *, sees: bool) -> bool:
    """Return True if the file exists; no magic link may lead to it or to its interpreters.

    A file that cannot be opened counts as existing, because executing it reports the reason. Raise
    `CommandError` for a file that cannot be checked now or here: execve(2) may wait where this
    check does not.
    """
    part = os.fsencode(path)
    for depth in range(_DEEPEST):
        try:
            opened = openat2(AT_FDCWD, part, _OPEN_FLAGS, resolve=0)
        except OSError as error:
            if error.errno == errno.ELOOP and not _is_circle(part):
                raise _magic_link_error(name, os.fsdecode(part)) from error
            if error.errno not in _AS_EXECUTED:
                raise _explained(name, error) from error
            missing = error.errno in _MISSING
            if missing and not sees and _leaves_mount(part):
                raise _UnseenError from error
            return depth > 0 or not missing
        try:
            line = os.read(opened, _FIRST_LINE).partition(b"\n")[0]
        except OSError:  # a directory, or a pipe without a writer
            return True
        finally:
            os.close(opened)
        if not line.startswith(b"#!"):
            return True
        words = line[2:].replace(b"\t", b" ").lstrip(b" ").replace(b"\0", b" ")
        part = words.partition(b" ")[0]
    return True


def _is_circle(path: bytes) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _leaves_mount(path: bytes) -> bool:
    """Return True if the path to a missing file may lead to another mount, such as /proc."""
    if not path.startswith(b"/"):
        return True
    try:
        os.close(openat2(AT_FDCWD, path, _OPEN_FLAGS, resolve=RESOLVE_NO_XDEV))
    except OSError as error:
        return error.errno == errno.EXDEV
    return True  # the file was created a moment ago


def _magic_link_error(name: str, path: str) -> CommandError:
    return CommandError(
        f"execute {name!r} in the container",
        f"{path} leads through a link in /proc to a file of the executing process",
        "the file would be the host's Python interpreter, which runs mydocker",
        "a path in the image",
    )


def _explained(name: str, error: OSError | None) -> MydockerError:
    asked = f"execute {name!r} in the container"
    if error is not None and is_exhausted(error):
        return exhausted(asked, error)
    if error is None or isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return CommandNotFoundError(
            asked,
            "no such command in the image",
            remedy="`mydocker run --rm IMAGE ls /bin` to list the commands",
        )
    return CommandError(asked, str(error.strerror))
