"""How things are shown: in the shapes that Docker's users and scripts know.

Docker's Engine API v1.4x names the keys of `inspect`; a key that mydocker has
nothing for is left out.
"""

from __future__ import annotations

import calendar
import io
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime import netshape
from runtime.binds import Bind, parse
from runtime.console import say
from runtime.image import Image
from runtime.records import Container

PS_HEADINGS: Final = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Networks": "NETWORKS",
    "Mounts": "MOUNTS",
    "Labels": "LABELS",
}
"""What `ps --format` can show, and what stands above it."""
IMAGE_HEADINGS: Final = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
}
"""What `images` shows, in this order."""
_ZERO_TIME: Final = "0001-01-01T00:00:00Z"
_STEPS: Final = ((60, "second"), (60, "minute"), (24, "hour"), (7, "day"), (0, "week"))


def container(found: Container) -> dict[str, Any]:
    """One entry of `mydocker inspect`."""
    config, state = found.config, found.state
    return {
        "Id": config.id,
        "Created": config.created,
        "Path": config.command[0],
        "Args": config.command[1:],
        "State": {
            "Status": word(found),
            "Running": found.running,
            "Paused": state.paused,
            "Pid": state.pid,
            "ExitCode": state.exit_code or 0,
            "StartedAt": state.started or _ZERO_TIME,
            "FinishedAt": state.finished or _ZERO_TIME,
        },
        "Image": f"sha256:{config.image_id}",
        "Name": f"/{config.name}",
        "HostConfig": {
            "NetworkMode": config.network,
            "PortBindings": netshape.asked_for(config.publish),
            "PublishAllPorts": config.publish_all,
            "AutoRemove": config.auto_remove,
            "Sysctls": config.sysctls,
            "Dns": config.dns,
            "ExtraHosts": config.add_hosts,
            "Binds": config.binds,
            "ReadonlyRootfs": config.read_only,
            "CapAdd": config.cap_add,
            "CapDrop": config.cap_drop,
            "Memory": config.memory,
            "NanoCpus": config.nano_cpus,
            "PidsLimit": config.pids_limit,
            "Init": True,
        },
        "Mounts": [_mount(parse("show a mount", text)) for text in config.binds],
        "Config": {
            "Hostname": config.hostname,
            "Tty": config.tty,
            "Env": config.env,
            "Entrypoint": config.entrypoint or None,
            "Cmd": config.command[len(config.entrypoint) :],
            "Image": config.image,
            "WorkingDir": config.workdir,
            "User": config.user,
            "ExposedPorts": {port: {} for port in config.exposed},
            "Labels": config.labels,
        },
        "NetworkSettings": netshape.settings(found),
    }


def _mount(bind: Bind) -> dict[str, Any]:
    kind = {"Type": "volume", "Name": bind.source} if bind.volume else {"Type": "bind"}
    place = {"Source": bind.source, "Destination": bind.target}
    return {**kind, **place, "Mode": "ro" if bind.read_only else "", "RW": not bind.read_only}


def word(found: Container) -> str:
    """A container's status in one word, as `inspect` and filters know it."""
    return "paused" if found.running and found.state.paused else found.state.status


def networks(found: Container) -> list[str]:
    """The networks that a container is on, or its mode."""
    return [item.network for item in found.state.endpoints] or [found.config.network]


def ps(found: Container, *, trunc: bool = True) -> dict[str, Any]:
    """What `ps --format` can show of a container, by Docker's names."""
    identity, image, command, age, state, ports, name = ps_row(found, trunc=trunc)
    return {
        "ID": identity,
        "Image": image,
        "Command": command,
        "CreatedAt": found.config.created,
        "RunningFor": age,
        "Status": state,
        "State": word(found),
        "Ports": ports,
        "Names": name,
        "Networks": ",".join(networks(found)),
        "Mounts": ",".join(text.partition(":")[0] for text in found.config.binds),
        "Labels": ",".join(f"{key}={value}" for key, value in found.config.labels.items()),
    }


def ps_row(found: Container, *, trunc: bool = True) -> list[str]:
    """One line of `mydocker ps`."""
    command = " ".join(found.config.command)
    shown = command if len(command) <= 20 or not trunc else f"{command[:19]}…"
    return [
        found.id[:12] if trunc else found.id,
        found.config.image,
        f'"{shown}"',
        ago(found.config.created),
        status(found),
        ", ".join(netshape.port_lines(found.state.ports)),
        found.name,
    ]


def status(found: Container) -> str:
    """What `ps` says about a container: Up 5 minutes; Exited (0) 2 hours ago; Created."""
    state = found.state
    if found.running:
        return f"Up {span(state.started)}{' (Paused)' if state.paused else ''}"
    if state.exit_code is not None:
        return f"Exited ({state.exit_code}) {ago(state.finished)}"
    return state.status.capitalize()


def image(found: Image, names: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `mydocker inspect` for an image; `config` is its whole configuration."""
    return {
        "Id": f"sha256:{found.id}",
        "RepoTags": list(names),
        "Created": config.get("created", ""),
        "Author": config.get("author", ""),
        "Architecture": config.get("architecture", ""),
        "Os": config.get("os", ""),
        "Size": found.size,
        "Config": config.get("config") or {},
        "RootFS": {"Type": "layers", "Layers": config["rootfs"]["diff_ids"]},
    }


def image_row(found: Image, *, trunc: bool = True) -> list[str]:
    """One line of `mydocker images`."""
    repository, _, tag = found.name.rpartition(":")
    identity = found.id[:12] if trunc else f"sha256:{found.id}"
    return [repository, tag, identity, ago(found.created), size(found.size)]


def size(count: int) -> str:
    """Bytes in the largest unit that fits, three digits of it: 5.61MB."""
    amount, units = float(count), ["TB", "GB", "MB", "kB", "B"]
    while amount >= 999.5 and len(units) > 1:
        amount /= 1000
        units.pop()
    return f"{amount:.3g}{units[-1]}"


def span(since: str) -> str:
    """The time since an RFC 3339 moment, in the largest unit that fits."""
    then = calendar.timegm(time.strptime(since[:19], "%Y-%m-%dT%H:%M:%S"))
    left = max(0, int(time.time()) - then)
    for size, unit in _STEPS:
        if not size or left < size:
            return f"{left} {unit}{'' if left == 1 else 's'}"
        left //= size
    raise AssertionError("the last unit has no end")


def ago(since: str) -> str:
    """`span`, and that it is past."""
    return f"{span(since)} ago"


def listing(template: str, headings: Mapping[str, str], items: Sequence[Mapping[str, Any]]) -> None:
    """Print each item through a template; behind `table `, as columns below their headings."""
    from runtime.template import render  # only who asks pays

    written = template.removeprefix("table ")
    if written == template:
        for item in items:
            say(render(template, item))
        return
    head, *rows = [render(written, item).split("\t") for item in (headings, *items)]
    table(head, rows)


def documents(template: str, items: Sequence[Mapping[str, Any]]) -> None:
    """Print items as one JSON document, or each through a template."""
    if template:
        listing(template, {}, items)
    else:
        say(json.dumps(items, indent=4))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as Docker does: no lines, nothing cut off."""
    from rich.console import Console  # imported only where a table is wanted
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="")
    for name in head:
        shown.add_column(name, no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    # As wide as it needs to be: a line that a script reads must not be folded.
    told = io.StringIO()
    Console(file=told, width=10_000, highlight=False, markup=False).print(shown)
    say(told.getvalue().removesuffix("\n"))
