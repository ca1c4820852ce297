"""The commands that look: ps, inspect, logs, top."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from runtime.cli import output
from runtime.cli.base import complain, say
from runtime.engine import Engine
from runtime.errors import InvalidError, MydockerError, NotFoundError
from runtime.records import ContainerRecord

_DURATION: Final = r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?"
_STATUSES: Final = ("created", "starting", "running", "paused", "exited", "removing")


def ps(engine: Engine, arguments: argparse.Namespace) -> int:
    """List containers."""
    wanted = [_condition(text) for text in arguments.filter]
    # A filter for a status looks for it among all, as Docker's does.
    everything = arguments.all or any(key in ("status", "exited") for key, _ in wanted)
    found = [item for item in engine.containers(everything=everything) if _selected(item, wanted)]
    if arguments.quiet:
        for item in found:
            say(item.id if arguments.no_trunc else item.id[:12])
    elif arguments.format:
        items = [output.ps(item, trunc=not arguments.no_trunc) for item in found]
        output.listing(arguments.format, output.PS_HEADINGS, items)
    else:
        rows = [output.ps_row(item, trunc=not arguments.no_trunc) for item in found]
        head = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
        output.table(head, rows)
    return 0


def _condition(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or key not in _FILTERS:
        keys = ", ".join(_FILTERS)
        raise InvalidError(f"use --filter {text}", f"it is not KEY=VALUE with a key of: {keys}")
    if key == "status" and value not in _STATUSES:
        raise InvalidError(f"use --filter {text}", f"a status is one of: {', '.join(_STATUSES)}")
    if key == "exited" and not value.isdecimal():
        raise InvalidError(f"use --filter {text}", f"{value!r} is no exit code")
    return key, value


def _selected(found: ContainerRecord, wanted: Sequence[tuple[str, str]]) -> bool:
    """Whether each key that is asked for has one of the values asked for it; labels: all."""
    for key in {key for key, _ in wanted}:
        fits = [_FILTERS[key](found, value) for asked, value in wanted if asked == key]
        if not (all(fits) if key == "label" else any(fits)):
            return False
    return True


def _named(found: ContainerRecord, value: str) -> bool:
    try:
        return re.search(value, found.name) is not None
    except re.error as error:
        raise InvalidError(f"use --filter name={value}", str(error)) from None


def _labelled(found: ContainerRecord, value: str) -> bool:
    key, equals, wanted = value.partition("=")
    has = found.config.labels
    return key in has and (not equals or has[key] == wanted)


_FILTERS: Final[Mapping[str, Callable[[ContainerRecord, str], bool]]] = {
    "id": lambda found, value: found.id.startswith(value),
    "name": _named,
    "status": lambda found, value: output.word(found) == value,
    "exited": lambda found, value: str(found.state.exit_code) == value and not found.running,
    "network": lambda found, value: value in output.networks(found),
    "volume": lambda found, value: any(value in text.split(":")[:2] for text in found.config.binds),
    "ancestor": lambda found, value: value in (found.config.image, found.config.image_id),
    "label": _labelled,
}


def inspect(engine: Engine, arguments: argparse.Namespace) -> int:
    """Print containers or images as JSON, or through a template; those that there are."""
    found, code = [], 0
    for item in arguments.containers:
        try:
            found.append(_inspected(engine, item))
        except NotFoundError as error:
            complain(error)
            code = 1
    if found:
        output.documents(arguments.format, found)
    return code


def _inspected(engine: Engine, reference: str) -> dict[str, Any]:
    """A container, or else an image, of that name."""
    try:
        return output.container(engine.inspect(reference))
    except NotFoundError:
        try:
            return output.image(*engine.images.inspect(reference))
        except MydockerError:
            pass  # what there is none of is first of all a container
        raise


def logs(engine: Engine, arguments: argparse.Namespace) -> int:
    """Print what a container wrote, each stream where it belongs."""
    tail = None if arguments.tail == "all" else _count(arguments.tail)
    since = moment(arguments.since) if arguments.since else ""
    entries = engine.logs(arguments.container, follow=arguments.follow, tail=tail, since=since)
    for entry in entries:
        out = sys.stderr.buffer if entry.stream == "stderr" else sys.stdout.buffer
        out.write(f"{entry.time} ".encode() if arguments.timestamps else b"")
        out.write(entry.data)
        out.flush()
    return 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise InvalidError(f"use --tail {text}", "it is no number of lines", remedy="--tail 10")
    return int(text)


def moment(text: str) -> str:
    """A moment as the log writes it: from seconds since 1970, `10m` ago, or RFC 3339."""
    from datetime import UTC, datetime, timedelta  # only who asks pays

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


def top(engine: Engine, arguments: argparse.Namespace) -> int:
    """Print the processes of a container, as `ps -ef` does."""
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


ACTIONS: Final[Mapping[str, Callable[[Engine, argparse.Namespace], int]]] = {
    "ps": ps,
    "inspect": inspect,
    "logs": logs,
    "top": top,
}
