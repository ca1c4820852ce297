"""How a command comes to be executed in the place where the caller already is.

A fork copies the page tables of who forks, and then page by page what the two
write to. posix_spawn(3) does not: the child borrows the caller's memory until it
executes. It knows how to begin a session and where the standard streams go, which is
all that most containers ask for. What needs more (a terminal, another user, other
capabilities) is done in a forked child, step by step, before it executes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import NamedTuple

from runtime import isolation, reports, terminal, users
from runtime.errors import CommandError, CommandNotFoundError


class Stdio(NamedTuple):
    """Descriptors of the caller that a container's command is connected to."""

    stdin: int
    stdout: int
    stderr: int


class Command(NamedTuple):
    """What to execute, where, as whom (`""` is root), and with which capabilities at most."""

    argv: list[str]
    env: dict[str, str]
    workdir: str
    user: str = ""
    capabilities: int = isolation.DEFAULT_CAPABILITIES


def begin(command: Command, stdio: Stdio, *, tty: bool, own: tuple[int, ...], report: int) -> int:
    """Have a child execute the command; its pid.

    `own` are the streams that were made for it, and that its user may open again.
    What keeps it from being executed is raised, or told on `report`, which stays open
    in the child until then.
    """
    special = tty or command.user or command.capabilities != isolation.DEFAULT_CAPABILITIES
    if not special:
        return _spawned(command, stdio)
    pid = os.fork()
    if not pid:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            become(command, stdio, tty=tty, own=own)
        except BaseException as error:
            reports.send_error(report, error)
        finally:
            os._exit(127)
    return pid


def become(command: Command, stdio: Stdio, *, tty: bool, own: tuple[int, ...] = ()) -> None:
    """Be the command from now on. Raises `CommandError` when that cannot be."""
    argv, env, workdir, user, capabilities = command
    os.setsid()
    if tty:
        terminal.take_control(stdio.stdin)
    if capabilities != isolation.DEFAULT_CAPABILITIES:
        isolation.forbid(capabilities)
    if user:
        found = users.find(user)
        env.setdefault("HOME", found.home)
        users.become(found, streams=own)
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    os.chdir(workdir)
    try:
        os.execvpe(argv[0], argv, env)  # noqa: S606 - no shell is what we want
    except OSError as error:
        raise _explained(argv[0], error) from error


def _spawned(command: Command, stdio: Stdio) -> int:
    """The pid of a child that executes the command already."""
    argv, env, workdir, _, _ = command
    streams = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(stdio)]
    os.chdir(workdir)  # posix_spawn has no word for it
    refusal: OSError | None = None
    try:
        for path in _candidates(argv[0], env):
            try:
                return os.posix_spawn(
                    path, argv, env, file_actions=streams, setsid=True, setsigmask=()
                )
            except OSError as error:  # as execvp(3): go on, and tell about the first that was there
                refusal = refusal or error
        missing = FileNotFoundError(f"no {argv[0]}")
        raise _explained(argv[0], refusal or missing) from refusal
    finally:
        os.chdir("/")


def _candidates(name: str, env: dict[str, str]) -> Iterator[str]:
    """Where the command may be: those of the places in PATH that have such a file."""
    if "/" in name:
        yield name
        return
    for directory in os.get_exec_path(env):
        path = f"{directory}/{name}"
        if os.path.exists(path):
            yield path


def _explained(name: str, error: OSError) -> CommandError:
    asked = f"execute {name!r} in the container"
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return CommandNotFoundError(
            asked,
            "there is no such command in the image",
            remedy="`mydocker run --rm IMAGE ls /bin` shows what there is",
        )
    return CommandError(asked, str(error.strerror))
