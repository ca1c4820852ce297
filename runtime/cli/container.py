"""Commands on existing containers: life cycle, lists, logs, processes and ports."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from runtime.cli import output
from runtime.cli.base import (
    CONTAINER,
    CONTAINERS,
    FORMAT,
    QUIET,
    TABLE_FORMAT,
    command,
    flag,
    for_each,
    option,
    print_error,
    print_line,
    repeated,
)
from runtime.errors import InvalidError, MydockerError, NotFoundError
from runtime.records import ContainerRecord

if TYPE_CHECKING:
    from runtime.container.lifecycle import Stopping
    from runtime.engine import Engine

_DURATION: Final = r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?"
_STATUSES: Final = ("created", "starting", "running", "paused", "exited", "removing")


# --- life ------------------------------------------------------------------------


def _seconds(text: str) -> float:
    """Parse a timeout in seconds; refuse a negative or infinite one."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, such as 10 or 0.5")
    return seconds


_TIME: Final = option(
    "-t",
    "--time",
    type=_seconds,
    default=10,
    help="seconds between SIGTERM and SIGKILL (default: 10)",
)


@command("start", CONTAINERS)
def start(engine: Engine, arguments: argparse.Namespace) -> int:
    """Start containers."""
    return for_each(arguments.containers, engine.start)


@command("stop", _TIME, CONTAINERS)
def stop(engine: Engine, arguments: argparse.Namespace) -> int:
    """Stop containers with SIGTERM, then SIGKILL."""
    begun: dict[str, Stopping] = {}
    seconds = arguments.time
    for item in arguments.containers:  # signal all of them before waiting for the first
        with suppress(MydockerError):  # reported below
            begun[item] = engine.stopping(item, timeout=seconds)
    return for_each(
        arguments.containers,
        lambda item: (begun.get(item) or engine.stopping(item, timeout=seconds)).finish(),
    )


@command("restart", _TIME, CONTAINERS)
def restart(engine: Engine, arguments: argparse.Namespace) -> int:
    """Stop containers and start them again."""
    seconds = arguments.time
    return for_each(arguments.containers, lambda item: engine.restart(item, timeout=seconds))


@command("pause", CONTAINERS)
def pause(engine: Engine, arguments: argparse.Namespace) -> int:
    """Suspend all processes in containers.

    This needs a writable cgroup with the freezer.
    """
    return for_each(arguments.containers, engine.pause)


@command("unpause", CONTAINERS)
def unpause(engine: Engine, arguments: argparse.Namespace) -> int:
    """Resume all processes in paused containers."""
    return for_each(arguments.containers, engine.unpause)


@command(
    "kill",
    option("-s", "--signal", default="KILL", help="signal name or number (default: KILL)"),
    CONTAINERS,
)
def kill(engine: Engine, arguments: argparse.Namespace) -> int:
    """Send a signal to containers."""
    from runtime.container.options import signal_number

    number = signal_number(f"send the signal {arguments.signal}", arguments.signal)
    return for_each(arguments.containers, lambda item: engine.kill(item, number))


@command("wait", CONTAINERS)
def wait(engine: Engine, arguments: argparse.Namespace) -> int:
    """Wait until containers stop and print their exit codes."""
    return for_each(arguments.containers, engine.wait)


@command(
    "rm",
    flag("-f", "--force", help="also remove running containers"),
    flag("-v", "--volumes", help="ignored, for compatibility: named volumes are kept"),
    CONTAINERS,
)
def rm(engine: Engine, arguments: argparse.Namespace) -> int:
    """Remove containers."""
    return for_each(arguments.containers, lambda item: engine.remove(item, force=arguments.force))


# --- lists -----------------------------------------------------------------------


@command(
    "ps",
    flag("-a", "--all", help="also list containers that are not running"),
    QUIET,
    flag("--no-trunc", help="print IDs and commands in full"),
    repeated(
        *("-f", "--filter"),
        metavar="KEY=VALUE",
        help="select by id, name, status, exited, network, volume, ancestor or label",
    ),
    TABLE_FORMAT,
)
def ps(engine: Engine, arguments: argparse.Namespace) -> int:
    """List containers."""
    wanted = [_condition(text) for text in arguments.filter]
    # As in Docker, a filter for a status includes containers that do not run.
    everything = arguments.all or any(key in ("status", "exited") for key, _ in wanted)
    found = [item for item in engine.containers(everything=everything) if _selected(item, wanted)]
    if arguments.quiet:
        for item in found:
            print_line(item.id if arguments.no_trunc else item.id[:12])
    else:
        items = [output.ps(item, trunc=not arguments.no_trunc) for item in found]
        output.listing(arguments.format, output.PS_HEADINGS, output.PS_COLUMNS, items)
    return 0


def _condition(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or key not in _FILTERS:
        keys = ", ".join(_FILTERS)
        raise InvalidError(
            f"use --filter {text}", f"the filter is not KEY=VALUE with one of these keys: {keys}"
        )
    if key == "status" and value not in _STATUSES:
        raise InvalidError(
            f"use --filter {text}", f"the status is not one of: {', '.join(_STATUSES)}"
        )
    if key == "exited" and not value.isdecimal():
        raise InvalidError(f"use --filter {text}", f"{value!r} is not an exit code")
    return key, value


def _selected(found: ContainerRecord, wanted: Sequence[tuple[str, str]]) -> bool:
    """Return True if a container passes the filters `wanted`, which are pairs of key and value.

    Of several values of one key, one has to match; of several labels, all have to match.
    """
    for key in {key for key, _ in wanted}:
        fits = [_FILTERS[key](found, value) for asked, value in wanted if asked == key]
        if not (all(fits) if key == "label" else any(fits)):
            return False
    return True


def _name_matches(found: ContainerRecord, value: str) -> bool:
    try:
        return re.search(value, found.name) is not None
    except re.error as error:
        raise InvalidError(f"use --filter name={value}", str(error)) from None


_FILTERS: Final[Mapping[str, Callable[[ContainerRecord, str], bool]]] = {
    "id": lambda found, value: found.id.startswith(value),
    "name": _name_matches,
    "status": lambda found, value: output.status_word(found) == value,
    "exited": lambda found, value: str(found.state.exit_code) == value and not found.running,
    "network": lambda found, value: value in output.networks(found),
    "volume": lambda found, value: any(value in text.split(":")[:2] for text in found.config.binds),
    "ancestor": lambda found, value: value in (found.config.image, found.config.image_id),
    "label": lambda found, value: any(
        value in (key, f"{key}={text}") for key, text in found.config.labels.items()
    ),
}


@command("inspect", FORMAT, CONTAINERS)
def inspect(engine: Engine, arguments: argparse.Namespace) -> int:
    """Show details of containers or images as JSON."""
    found, code = [], 0
    for item in arguments.containers:
        try:
            found.append(_container_or_image(engine, item))
        except NotFoundError as error:
            print_error(error)
            code = 1
    if found:
        output.documents(arguments.format, found)
    return code


def _container_or_image(engine: Engine, reference: str) -> dict[str, Any]:
    """Return the container of that name, or else the image."""
    try:
        return output.container(engine.inspect(reference))
    except NotFoundError:
        with suppress(MydockerError):  # the error about the container is the one to report
            return output.image(*engine.images.inspect(reference))
        raise


# --- logs and processes ----------------------------------------------------------


@command(
    "logs",
    flag("-f", "--follow", help="print new output until the container stops"),
    flag("-t", "--timestamps", help="prefix each line with its time"),
    option(
        "-n",
        "--tail",
        default="all",
        metavar="N",
        help="print only the last N lines (default: all)",
    ),
    option(
        "--since",
        default="",
        metavar="TIME",
        help="print only lines since TIME: 10m, 1h30m or 2026-01-31T12:00:00Z",
    ),
    CONTAINER,
)
def logs(engine: Engine, arguments: argparse.Namespace) -> int:
    """Print the output of a container.

    The container's standard error goes to standard error.
    """
    tail = None if arguments.tail == "all" else _count(arguments.tail)
    since = log_time(arguments.since) if arguments.since else ""
    entries = engine.logs(arguments.container, follow=arguments.follow, tail=tail, since=since)
    for entry in entries:
        out = sys.stderr.buffer if entry.stream == "stderr" else sys.stdout.buffer
        out.write(f"{entry.time} ".encode() if arguments.timestamps else b"")
        out.write(entry.data)
        out.flush()
    return 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise InvalidError(
            f"use --tail {text}", "the value is not a number of lines", remedy="--tail 10"
        )
    return int(text)


def log_time(text: str) -> str:
    """Convert a time to the log's format.

    The time is in seconds since 1970, in RFC 3339, or a duration before now, such as `10m`.
    """
    from datetime import UTC, datetime, timedelta  # `--since` alone needs it

    duration = re.fullmatch(_DURATION, text)
    try:
        if re.fullmatch(r"\d+(\.\d+)?", text):
            then = datetime.fromtimestamp(float(text), UTC)
        elif duration is not None and text:
            hours, minutes, seconds = (float(item or 0) for item in duration.groups())
            ago = timedelta(hours=hours, minutes=minutes, seconds=seconds)
            then = datetime.now(UTC) - ago
        else:
            then = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        asked = f"use --since {text}"
        raise InvalidError(
            asked, str(error), remedy="--since 10m, or 2026-01-31T12:00:00Z"
        ) from None
    return f"{then:%Y-%m-%dT%H:%M:%S.%f}000Z"


@command("top", CONTAINER)
def top(engine: Engine, arguments: argparse.Namespace) -> int:
    """List the processes of a container as the host sees them."""
    rows = []
    for item in engine.top(arguments.container):
        share = int(100 * item.used / max(time.time() - item.started, 0.01))
        minutes, seconds = divmod(int(item.used), 60)
        used = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
        started = time.strftime("%H:%M", time.localtime(item.started))
        pids = [str(item.pid), str(item.parent)]
        rows.append([item.user, *pids, str(share), started, item.terminal, used, item.command])
    output.table(["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], rows)
    return 0


@command(
    "port",
    CONTAINER,
    option(
        "port",
        nargs="?",
        default="",
        metavar="PORT[/PROTOCOL]",
        help="print only the mappings of this port",
    ),
)
def port(engine: Engine, arguments: argparse.Namespace) -> int:
    """List the published ports of a container."""
    found = engine.inspect(arguments.container)
    rows = output.port_rows(found.state.ports, arguments.port)
    if arguments.port and not rows:
        raise NotFoundError(
            f"show port {arguments.port} of container {found.name!r}", "the port is not published"
        )
    for row in rows:
        print_line(row)
    return 0


COMMANDS: Final = (
    *(start, stop, restart, pause, unpause, kill, wait, rm),
    *(ps, inspect, logs, top, port),
)
