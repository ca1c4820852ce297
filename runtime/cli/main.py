"""The command `mydocker`: Docker's names and habits, a library call behind each."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from runtime.cli.base import complain, each, each_at_once, say, untold
from runtime.cli.run import environment, environment_files, options, parser
from runtime.container.options import number_of
from runtime.container.start import Descriptors
from runtime.engine import Engine
from runtime.errors import MydockerError, exhausted, is_exhausted, is_full, no_room
from runtime.init import terminal
from runtime.init.process import Stdio

Action = Callable[[Engine, argparse.Namespace], int]

_FORWARDED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code, as Docker's. Who gives no words is the program itself."""
    if argv is None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks is no error
                stream.reconfigure(errors="replace")
        _end(_obey(sys.argv[1:]))
    return _obey(argv)


def _end(code: int) -> NoReturn:
    """End at once: to take an interpreter apart takes longer than to start a container."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        if not code and not isinstance(error, BrokenPipeError):  # else it has been told
            complain(untold(error))
        code = code or 1
    os._exit(code)


def _obey(words: Sequence[str]) -> int:
    grammar = parser(words[0] if words else "")
    arguments = grammar.parse_args(words)
    try:
        if arguments.action == "completion":  # for everybody, root or not
            from runtime.cli.completion import completion

            return completion(grammar, arguments.shell)
        return _action(arguments.action)(Engine(), arguments)
    except MydockerError as error:
        complain(error)
        return _code(arguments.action, error.exit_code)
    except BrokenPipeError:
        # The reader has had enough, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains again at exit
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        complain(_meaning(f"mydocker {' '.join(words)}", error))
        return _code(arguments.action, MydockerError.exit_code)


def _meaning(asked: str, error: OSError) -> Exception:
    if is_exhausted(error):
        return exhausted(asked, error)
    return no_room(asked, error) if is_full(error) else error


def _code(action: str, code: int) -> int:
    """Docker's exit code: 125 is for `run` alone, where 1 would be the command's own."""
    return 1 if code == MydockerError.exit_code and action != "run" else code


def _action(name: str) -> Action:
    """What carries out a command; what the others need is not even imported."""
    if name in _ACTIONS:
        return _ACTIONS[name]
    for module in _MORE:
        actions: Mapping[str, Action] = importlib.import_module(module).ACTIONS
        if name in actions:
            return actions[name]
    raise LookupError(name)


# --- run and exec ----------------------------------------------------------------


def _run(engine: Engine, arguments: argparse.Namespace) -> int:
    asked = options(arguments)
    image, command = arguments.image, arguments.command
    if arguments.detach:
        say(engine.run(image, command, **asked).id)
        return 0
    with _stdio(interactive=arguments.interactive) as stdio, Descriptors() as open_here:
        lost, told = open_here.pipe()
        with _signals_held_back():
            found = engine.run(image, command, stdio=stdio, lost=told, **asked)
            open_here.close(told)
            if found.console < 0:
                _forward(lambda number: engine.kill(found.id, number))
        if found.console < 0:
            return engine.wait(found.id, lost=lost)
        log = engine.log(found.id)
        try:
            terminal.relay(found.console, stdio.stdin, stdio.stdout, record=log)
        finally:
            log.close()
            os.close(found.console)
        return engine.wait(found.id)


def _create(engine: Engine, arguments: argparse.Namespace) -> int:
    say(engine.create(arguments.image, arguments.command, **options(arguments)).id)
    return 0


def _exec(engine: Engine, arguments: argparse.Namespace) -> int:
    with _stdio(interactive=arguments.interactive) as stdio:
        with _signals_held_back():
            running = engine.spawn(
                arguments.container,
                arguments.command,
                stdio=stdio,
                tty=arguments.tty,
                env={**environment_files(arguments.env_file), **environment(arguments.env)},
                workdir=arguments.workdir,
                user=arguments.user,
            )
            if running.console < 0:
                _forward(lambda number: os.kill(running.pid, number))
        if running.console < 0:
            return running.wait()
        try:
            terminal.relay(running.console, stdio.stdin, stdio.stdout)
        finally:
            os.close(running.console)
        return running.wait()


@contextmanager
def _stdio(*, interactive: bool) -> Iterator[Stdio]:
    """The caller's own streams; without `-i` there is nothing to read."""
    if interactive:
        yield Stdio(0, 1, 2)
        return
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Stdio(nothing, 1, 2)
    finally:
        os.close(nothing)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let signals wait until the body is over, when it is known whom they are for."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forward(send: Callable[[int], None]) -> None:
    """From now on pass signals on instead of dying of them."""

    def forward(number: int, _: object) -> None:
        try:
            send(number)
        except (MydockerError, ProcessLookupError):
            return  # it has just ended; its exit code is on the way

    for number in _FORWARDED:
        signal.signal(number, forward)


# --- life ------------------------------------------------------------------------


def _start(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.containers, engine.start)


def _stop(engine: Engine, arguments: argparse.Namespace) -> int:
    seconds = arguments.time
    return each_at_once(
        arguments.containers, lambda item: engine.stopping(item, timeout=seconds).finish
    )


def _restart(engine: Engine, arguments: argparse.Namespace) -> int:
    seconds = arguments.time
    return each(arguments.containers, lambda item: engine.restart(item, timeout=seconds))


def _pause(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.containers, engine.pause)


def _unpause(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.containers, engine.unpause)


def _kill(engine: Engine, arguments: argparse.Namespace) -> int:
    number = number_of(f"send the signal {arguments.signal}", arguments.signal)
    return each(arguments.containers, lambda item: engine.kill(item, number))


def _wait(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.containers, engine.wait)


def _rm(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.containers, lambda item: engine.remove(item, force=arguments.force))


# --- the whole -------------------------------------------------------------------


def _system_reset(engine: Engine, _: argparse.Namespace) -> int:
    engine.teardown()
    return 0


def _system_repair(engine: Engine, _: argparse.Namespace) -> int:
    engine.repair()
    return 0


_ACTIONS: Final[Mapping[str, Action]] = {
    "run": _run,
    "create": _create,
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "pause": _pause,
    "unpause": _unpause,
    "kill": _kill,
    "wait": _wait,
    "rm": _rm,
    "exec": _exec,
    "system_reset": _system_reset,
    "system_repair": _system_repair,
}
_MORE: Final = (
    "runtime.cli.container",
    "runtime.cli.network",
    "runtime.cli.volume",
    "runtime.cli.image",
)
"""Modules with `ACTIONS` of their own."""
