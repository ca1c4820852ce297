"""The commands `run`, `create` and `exec`."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from runtime.cli.base import CONTAINER, command, flag, option, pairs, print_line, repeated, size
from runtime.errors import InvalidError, MydockerError
from runtime.records import DEFAULT_NETWORK

if TYPE_CHECKING:  # imported when the arguments have been read
    from runtime.container.options import ContainerOptions
    from runtime.engine import Engine
    from runtime.init.process import Stdio

_FORWARDED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def _host_path(bind: str) -> str:
    """Return a bind option; make a relative source (`./…`) absolute."""
    source, colon, rest = bind.partition(":")
    if source.partition("/")[0] in (".", ".."):
        source = os.path.abspath(source)
    return f"{source}{colon}{rest}"


_INTERACTIVE: Final = flag("-i", "--interactive", help="pass standard input to the command")
_TTY: Final = flag("-t", "--tty", help="allocate a terminal")
_ENVIRONMENT: Final = (
    repeated(
        *("-e", "--env"),
        metavar="KEY=VALUE",
        help="set an environment variable; KEY alone takes the caller's value",
    ),
    repeated(
        "--env-file", metavar="FILE", help="read environment variables from FILE, one per line"
    ),
)
_WORKDIR: Final = option(
    "-w",
    "--workdir",
    default="",
    help="working directory of the command (default: that of the image or container)",
)
_USER: Final = option(
    *("-u", "--user"),
    default="",
    metavar="USER[:GROUP]",
    help="name or ID of the user in the container (default: that of the image or container)",
)
_CREATION: Final = (
    # Destinations are the keys of `ContainerOptions`; `_options` converts the others.
    _TTY,
    option("--name", default="", help="container name (default: derived from the ID)"),
    flag("--rm", dest="auto_remove", help="remove the container when it stops"),
    *_ENVIRONMENT,
    _WORKDIR,
    _USER,
    option(
        "--entrypoint",
        default=argparse.SUPPRESS,
        type=lambda text: [text] if text else [],
        metavar="PROGRAM",
        help="replace the image's entrypoint and command",
    ),
    option("--hostname", default="", help="hostname (default: the first 12 digits of the ID)"),
    repeated(
        *("--net", "--network"),
        dest="networks",
        metavar="MODE",
        help="bridge (default), none, host, container:<name or id> or the name of a network; "
        "use `network connect` for further networks",
    ),
    option("--ip", default="", help="IPv4 address on the network"),
    option("--ip6", default="", help="IPv6 address on the network"),
    option(
        "--mac-address",
        dest="mac",
        default="",
        help="MAC address (default: derived from the IP address)",
    ),
    repeated(
        "--network-alias",
        dest="aliases",
        metavar="NAME",
        help="additional DNS name on a user-defined network",
    ),
    repeated(
        *("-p", "--publish"),
        metavar="[ADDRESS:][PORT:]PORT[/PROTOCOL]",
        help="publish a container port on the host; ranges such as 8000-8009:80-89; "
        "IPv6 addresses in brackets; tcp (default), udp or sctp",
    ),
    flag("-P", "--publish-all", help="publish all exposed ports on free host ports"),
    repeated("--expose", metavar="PORT[/PROTOCOL]", help="expose a port, which -P then publishes"),
    repeated(
        "--sysctl",
        dest="sysctls",
        metavar="KEY=VALUE",
        help="set a sysctl in the container's namespaces; net.* only with a network namespace",
    ),
    repeated("--dns", metavar="ADDRESS", help="address of a DNS server for the container"),
    repeated(
        "--add-host", dest="add_hosts", metavar="NAME:ADDRESS", help="add a line to /etc/hosts"
    ),
    repeated(
        *("-v", "--volume"),
        dest="binds",
        type=_host_path,
        metavar="SOURCE:TARGET[:ro]",
        help="mount a file or directory of the host, or a named volume",
    ),
    flag("--read-only", help="mount the root file system read-only"),
    repeated("--cap-add", metavar="NAME", help="add a capability, or ALL"),
    repeated("--cap-drop", metavar="NAME", help="drop a capability, or ALL"),
    flag("--init", help="ignored, for compatibility: there is always an init process"),
    option("-m", "--memory", default="", metavar="SIZE", help="memory limit, such as 64m"),
    option("--cpus", type=float, default=0.0, metavar="N", help="CPU limit, such as 0.5"),
    option(
        "--pids-limit",
        type=int,
        default=0,
        metavar="N",
        help="limit of processes and threads, such as 100",
    ),
    option("image", help="name or ID of the image"),
    option(
        "command",
        nargs=argparse.REMAINDER,
        metavar="COMMAND …",
        help="command and arguments (default: those of the image)",
    ),
)


@command(
    "run",
    flag("-d", "--detach", help="print the ID and leave the container running"),
    _INTERACTIVE,
    *_CREATION,
)
def run(engine: Engine, arguments: argparse.Namespace) -> int:
    """Create and start a container."""
    from runtime.container.start import Descriptors
    from runtime.init import terminal

    options = container_options(arguments)
    image, argv = arguments.image, arguments.command
    if arguments.detach:
        print_line(engine.run(image, argv, **options).id)
        return 0
    with _stdio(interactive=arguments.interactive) as stdio, Descriptors() as descriptors:
        lost, report = descriptors.pipe()
        with _signals_blocked():
            found = engine.run(image, argv, stdio=stdio, lost=report, **options)
            descriptors.close(report)
            if found.console < 0:
                _forward_signals(lambda number: engine.kill(found.id, number))
        if found.console < 0:
            return engine.wait(found.id, lost=lost)
        log = engine.log(found.id)
        try:
            terminal.relay(found.console, stdio.stdin, stdio.stdout, record=log)
        finally:
            log.close()
            os.close(found.console)
        return engine.wait(found.id)


@command("create", *_CREATION)
def create(engine: Engine, arguments: argparse.Namespace) -> int:
    """Create a container without starting it."""
    options = container_options(arguments)
    print_line(engine.create(arguments.image, arguments.command, **options).id)
    return 0


@command(
    "exec",
    _INTERACTIVE,
    _TTY,
    *_ENVIRONMENT,
    _WORKDIR,
    _USER,
    CONTAINER,
    option("command", nargs=argparse.REMAINDER, metavar="COMMAND …", help="command and arguments"),
)
def execute(engine: Engine, arguments: argparse.Namespace) -> int:
    """Execute a command in a running container."""
    with _stdio(interactive=arguments.interactive) as stdio:
        with _signals_blocked():
            running = engine.spawn(
                arguments.container,
                arguments.command,
                stdio=stdio,
                tty=arguments.tty,
                env=_environment(arguments),
                workdir=arguments.workdir,
                user=arguments.user,
            )
            if running.console < 0:
                _forward_signals(lambda number: os.kill(running.pid, number))
        if running.console < 0:
            return running.wait()
        from runtime.init import terminal

        try:
            terminal.relay(running.console, stdio.stdin, stdio.stdout)
        finally:
            os.close(running.console)
        return running.wait()


COMMANDS: Final = (run, create, execute)


@contextmanager
def _stdio(*, interactive: bool) -> Iterator[Stdio]:
    """Yield the caller's standard streams; without `interactive` standard input is /dev/null."""
    from runtime.init.process import Stdio

    if interactive:
        yield Stdio(0, 1, 2)
        return
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Stdio(null, 1, 2)
    finally:
        os.close(null)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals during the body, which starts the process that will get the signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forward_signals(send: Callable[[int], None]) -> None:
    """Pass each signal to `send` from now on."""

    def forward(number: int, _: object) -> None:
        try:
            send(number)
        except (MydockerError, ProcessLookupError):
            return  # the container has just ended; its exit code follows

    for number in _FORWARDED:
        signal.signal(number, forward)


def container_options(arguments: argparse.Namespace) -> ContainerOptions:
    """Return the options of `run` and `create` for the engine."""
    from runtime.container.options import ContainerOptions

    first, *more = arguments.networks or [DEFAULT_NETWORK]
    if more:
        raise InvalidError(
            f"create a container on the networks {first}, {', '.join(more)}",
            "a new container has exactly one network",
            remedy=f"`mydocker network connect {more[0]} NAME` once the container exists",
        )
    given: dict[str, Any] = {
        **vars(arguments),
        "network": first,
        "env": _environment(arguments),
        "sysctls": pairs("--sysctl", arguments.sysctls),
        "memory": size("--memory", arguments.memory),
        "pids_limit": max(arguments.pids_limit, 0),  # -1 is no limit, as with Docker
    }
    known = ContainerOptions.__annotations__
    return cast("ContainerOptions", {key: given[key] for key in known if key in given})


def _environment(arguments: argparse.Namespace) -> dict[str, str]:
    return {**environment_files(arguments.env_file), **_variables(arguments.env)}


def _variables(entries: Sequence[str]) -> dict[str, str]:
    """Return environment variables from `KEY=VALUE` entries.

    For `KEY` alone, take the caller's value; leave the variable out if the caller does not have it.
    """
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not key:
            raise InvalidError(f"use -e {entry}", "the value is not KEY=VALUE")
        if equals or key in os.environ:
            found[key] = value if equals else os.environ[key]
    return found


def environment_files(paths: Sequence[str]) -> dict[str, str]:
    """Return the environment variables in files, one per line; ignore empty lines and `# …`."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.lstrip() for line in file.read().split("\n")]
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else ""
            raise InvalidError(f"use --env-file {path}", why or str(error)) from error
        entries = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#")]
        for entry in entries:
            name = entry.partition("=")[0]
            if not name or " " in name:
                raise InvalidError(f"use --env-file {path}", f"{entry!r} is not KEY=VALUE")
        found |= _variables(entries)
    return found
