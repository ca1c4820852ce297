"""The command `mydocker`: Docker's names and habits, a library call behind each."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from runtime import imagecli, lookcli, shape, terminal, volumecli
from runtime.completion import completion
from runtime.console import complain, each, say
from runtime.engine import Engine
from runtime.errors import InvalidError, MydockerError
from runtime.init import Stdio
from runtime.net.design import NetworkOptions
from runtime.optioncli import environment, environment_files, options, pairs
from runtime.parser import parser

_FORWARDED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_MTU_KEYS: Final = ("mtu", "com.docker.network.driver.mtu")
_ICC_KEYS: Final = ("icc", "com.docker.network.bridge.enable_icc")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code, as Docker's."""
    grammar = parser()
    arguments = grammar.parse_args(argv)
    try:
        if arguments.action == "completion":  # for everybody, root or not
            return completion(grammar, arguments.shell)
        return _ACTIONS[arguments.action](Engine(), arguments)
    except MydockerError as error:
        complain(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader has had enough, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains again at exit
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        complain(error)
        return 125


# --- run and exec ----------------------------------------------------------------


def _run(engine: Engine, arguments: argparse.Namespace) -> int:
    asked = options(arguments)
    image, command = arguments.image, arguments.command
    if arguments.detach:
        say(engine.run(image, command, **asked).id)
        return 0
    with _stdio(interactive=arguments.interactive) as stdio:
        with _signals_held_back():
            found = engine.run(image, command, stdio=stdio, **asked)
            if found.console < 0:
                _forward(lambda number: engine.kill(found.id, number))
        if found.console < 0:
            return engine.wait(found.id)
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
    return each(arguments.containers, lambda item: engine.stop(item, timeout=seconds))


def _restart(engine: Engine, arguments: argparse.Namespace) -> int:
    seconds = arguments.time
    return each(arguments.containers, lambda item: engine.restart(item, timeout=seconds))


def _pause(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.containers, engine.pause)


def _unpause(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.containers, engine.unpause)


def _kill(engine: Engine, arguments: argparse.Namespace) -> int:
    number = _signal(arguments.signal)
    return each(arguments.containers, lambda item: engine.kill(item, number))


def _signal(text: str) -> int:
    name = text.upper().removeprefix("SIG")
    try:
        return int(text) if text.isdigit() else signal.Signals[f"SIG{name}"].value
    except KeyError:
        raise InvalidError(f"send the signal {text}", "there is no such signal") from None


def _wait(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.containers, engine.wait)


def _rm(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.containers, lambda item: engine.remove(item, force=arguments.force))


# --- networks, the whole ---------------------------------------------------------


def _network_create(engine: Engine, arguments: argparse.Namespace) -> int:
    wanted = NetworkOptions(
        ip_range=arguments.ip_range, ipv6=arguments.ipv6, internal=arguments.internal
    )
    for subnet in arguments.subnet:
        wanted["subnet6" if ":" in subnet else "subnet"] = subnet
    for gateway in arguments.gateway:
        wanted["gateway6" if ":" in gateway else "gateway"] = gateway
    for key, value in pairs("--opt", arguments.opt).items():
        if key in _MTU_KEYS and value.isdigit():
            wanted["mtu"] = int(value)
        elif key in _ICC_KEYS and value in ("true", "false"):
            wanted["icc"] = value == "true"
        else:
            asked = f"use --opt {key}={value}"
            raise InvalidError(asked, "there is no such option or value", remedy="mtu=1400")
    say(engine.network_create(arguments.name, **wanted).id)
    return 0


def _network_ls(engine: Engine, arguments: argparse.Namespace) -> int:
    rows = [[item.id[:12], item.name, "bridge", "local"] for item in engine.networks()]
    if arguments.quiet:
        for row in rows:
            say(row[0])
    else:
        # Modes rather than networks, shown because `--net` takes them too.
        rows += [["-", name, name, "local"] for name in ("host", "none")]
        shape.table(["NETWORK ID", "NAME", "DRIVER", "SCOPE"], rows)
    return 0


def _network_rm(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.networks, engine.network_remove)


def _network_inspect(engine: Engine, arguments: argparse.Namespace) -> int:
    running = engine.containers(everything=False)
    found = [engine.network_inspect(item) for item in arguments.networks]
    say(json.dumps([shape.network(item, running) for item in found], indent=4))
    return 0


def _system_reset(engine: Engine, _: argparse.Namespace) -> int:
    engine.teardown()
    return 0


def _system_repair(engine: Engine, _: argparse.Namespace) -> int:
    engine.repair()
    return 0


_ACTIONS: Final[Mapping[str, Callable[[Engine, argparse.Namespace], int]]] = {
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
    "network_create": _network_create,
    "network_ls": _network_ls,
    "network_rm": _network_rm,
    "network_inspect": _network_inspect,
    "system_reset": _system_reset,
    "system_repair": _system_repair,
    **lookcli.ACTIONS,
    **volumecli.ACTIONS,
    **imagecli.ACTIONS,
}
