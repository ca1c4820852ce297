"""Run a shell on the host with job control, as if the caller's shell had started it.

An interactive shell gets its own process group in the terminal's foreground *before* it starts. In
its pid namespace the caller's group has id 0, which no shell can use. A process of the caller's
group gives it the foreground, so that a lab in the background waits for `fg` as any job does. When
the shell stops itself (`suspend`), the caller's whole group stops, and the outer shell continues.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NoReturn

from harness.world.host import HostMachine, quiet_fork

TERMINAL: Final = 0
_KEYS: Final = (signal.SIGINT, signal.SIGQUIT)
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python ignores; a program expects their defaults."""


def has_job_control() -> bool:
    """Return whether standard input is this session's terminal, so that job control works."""
    try:
        os.tcgetpgrp(TERMINAL)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restore the terminal's settings after the body: a killed shell leaves them changed."""
    if not has_job_control():
        yield
        return
    before = termios.tcgetattr(TERMINAL)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal itself is gone
            termios.tcsetattr(TERMINAL, termios.TCSADRAIN, before)


def run(
    host: HostMachine,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    prepare: Callable[[], None],
    interactive: bool,
) -> int:
    """Run `argv` in all namespaces of `host`; return its exit code, or 128+N after signal N.

    `prepare` is called there first. The working directory is the caller's if it exists on the host.
    If there is no such program, or it cannot be executed, print a line to standard error and return
    127 or 126.
    """
    with _without_keyboard_signals():
        supervisor = quiet_fork()
        if supervisor == 0:
            _supervise(host, argv, environment, prepare, interactive=interactive)
        _, status = os.waitpid(supervisor, 0)
    return _shell_status(status)


@contextlib.contextmanager
def _without_keyboard_signals() -> Iterator[None]:
    """Ignore SIGINT and SIGQUIT while a program runs: the keyboard sends them to the program."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _KEYS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _shell_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _supervise(
    host: HostMachine,
    argv: Sequence[str],
    environment: Mapping[str, str],
    prepare: Callable[[], None],
    *,
    interactive: bool,
) -> NoReturn:
    """Start the program on the host, wait for its end, and exit with its status."""
    code = 1
    try:
        directory = os.getcwd()
        host.enter()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)  # it is in the foreground now
            prepare()
            _become(argv, environment, directory)
        if interactive:
            os.setpgid(child, child)
            os.tcsetpgrp(TERMINAL, child)
        os.close(writer)
        code = _shell_status(_end_of(child, interactive=interactive))
    except Exception as error:
        sys.stderr.write(f"netmodes lab: cannot enter the host: {error}\n")
    finally:
        os._exit(code)


def _end_of(child: int, *, interactive: bool) -> int:
    while True:
        _, status = os.waitpid(child, os.WUNTRACED if interactive else 0)
        if not os.WIFSTOPPED(status):
            return status
        os.kill(0, signal.SIGTSTP)
        os.tcsetpgrp(TERMINAL, child)
        os.killpg(child, signal.SIGCONT)


def _become(argv: Sequence[str], environment: Mapping[str, str], directory: str) -> NoReturn:
    for number in (*_KEYS, *_IGNORED_BY_PYTHON):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError):  # the host's private /run hides it: stay in /
        os.chdir(directory)
    try:
        os.execvpe(argv[0], list(argv), dict(environment))  # noqa: S606 - what it is for
    except OSError as error:
        sys.stderr.write(f"netmodes lab: cannot run {argv[0]!r}: {error.strerror}\n")
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)
