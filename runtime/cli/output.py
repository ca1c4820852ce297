"""Output in Docker's formats: tables, the JSON of `inspect`, and Go templates.

The keys of `inspect` are those of Docker's Engine API v1.4x. Keys for which mydocker has no value
are left out.
"""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from runtime.cli.base import print_line
from runtime.errors import InvalidError

if TYPE_CHECKING:
    from runtime.image.config import Image
    from runtime.init.rootfs import Bind
    from runtime.records import ContainerRecord, EndpointRecord, NetworkConfig, Publication

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
"""Fields of `ps` and their headings."""
PS_COLUMNS: Final = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
IMAGE_HEADINGS: Final = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
}
"""Fields of `images`, in this order, and their headings."""
_ZERO_TIME: Final = "0001-01-01T00:00:00Z"
_STEPS: Final = ((60, "second"), (60, "minute"), (24, "hour"), (7, "day"), (0, "week"))


def container(found: ContainerRecord) -> dict[str, Any]:
    """Return the entry of a container in `mydocker inspect`."""
    from runtime.init.rootfs import parse_bind

    config, state = found.config, found.state
    return {
        "Id": config.id,
        "Created": config.created,
        "Path": config.command[0],
        "Args": config.command[1:],
        "State": {
            "Status": status_word(found),
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
            "PortBindings": bindings(requested_ports(config.publish)),
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
        "Mounts": [_mount(parse_bind("show a mount", text)) for text in config.binds],
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
        "NetworkSettings": network_settings(found),
    }


def _mount(bind: Bind) -> dict[str, Any]:
    kind = {"Type": "volume", "Name": bind.source} if bind.volume else {"Type": "bind"}
    paths = {"Source": bind.source, "Destination": bind.target}
    return {**kind, **paths, "Mode": "ro" if bind.read_only else "", "RW": not bind.read_only}


def status_word(found: ContainerRecord) -> str:
    """Return a container's status in one word, for `inspect` and filters."""
    return "paused" if found.running and found.state.paused else found.state.status


def networks(found: ContainerRecord) -> list[str]:
    """Return the networks that a container is connected to, or its network mode."""
    return [item.network for item in found.state.endpoints] or [found.config.network]


def ps(found: ContainerRecord, *, trunc: bool = True) -> dict[str, str]:
    """Return the fields of a container in `ps`, by Docker's names."""
    command = " ".join(found.config.command)
    if trunc and len(command) > 20:
        command = f"{command[:19]}…"
    return {
        "ID": found.id[:12] if trunc else found.id,
        "Image": found.config.image,
        "Command": f'"{command}"',
        "CreatedAt": found.config.created,
        "RunningFor": ago(found.config.created),
        "Status": status(found),
        "State": status_word(found),
        "Ports": ", ".join(port_lines(found.state.ports)),
        "Names": found.name,
        "Networks": ",".join(networks(found)),
        "Mounts": ",".join(text.partition(":")[0] for text in found.config.binds),
        "Labels": ",".join(f"{key}={value}" for key, value in found.config.labels.items()),
    }


def status(found: ContainerRecord) -> str:
    """Return a container's status for `ps`: Up 5 minutes; Exited (0) 2 hours ago; Created."""
    state = found.state
    if found.running:
        return f"Up {span(state.started)}{' (Paused)' if state.paused else ''}"
    if state.exit_code is not None:
        return f"Exited ({state.exit_code}) {ago(state.finished)}"
    return state.status.capitalize()


def image(found: Image, names: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of an image in `mydocker inspect`; `config` is its configuration."""
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


def images(found: Image, *, trunc: bool = True) -> dict[str, str]:
    """Return the fields of an image in `images`, by Docker's names."""
    repository, _, tag = found.name.rpartition(":")
    return {
        "Repository": repository,
        "Tag": tag,
        "ID": found.id[:12] if trunc else f"sha256:{found.id}",
        "CreatedSince": ago(found.created),
        "Size": size(found.size),
    }


def size(count: int) -> str:
    """Return a number of bytes with three digits, in the largest unit that fits: 5.61MB."""
    amount, units = float(count), ["TB", "GB", "MB", "kB", "B"]
    while amount >= 999.5 and len(units) > 1:
        amount /= 1000
        units.pop()
    return f"{amount:.3g}{units[-1]}"


def span(since: str) -> str:
    """Return the time since an RFC 3339 time, in the largest unit that fits."""
    then = calendar.timegm(time.strptime(since[:19], "%Y-%m-%dT%H:%M:%S"))
    left = max(0, int(time.time()) - then)
    for size, unit in _STEPS:
        if not size or left < size:
            return f"{left} {unit}{'' if left == 1 else 's'}"
        left //= size
    raise AssertionError("the last unit has no limit")


def ago(since: str) -> str:
    """Return the time since an RFC 3339 time as `span` does, with the word "ago"."""
    return f"{span(since)} ago"


def listing(
    template: str,
    headings: Mapping[str, str],
    columns: Iterable[str],
    items: Sequence[Mapping[str, Any]],
) -> None:
    """Print items as a table, or each item through a Go template.

    Without a template, the table has the given columns. After the word `table `, the template gives
    each row of the table.
    """
    written = template.removeprefix("table ")
    if not template:
        head, *rows = [[item[name] for name in columns] for item in (headings, *items)]
        table(head, rows)
    elif written == template:
        for item in items:
            print_line(render(template, item))
    else:
        head, *rows = [render(written, item).split("\t") for item in (headings, *items)]
        table(head, rows)


def documents(template: str, items: Sequence[Mapping[str, Any]]) -> None:
    """Print items as one JSON document, or each through a template."""
    if template:
        listing(template, {}, (), items)
    else:
        print_line(json.dumps(items, indent=4))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as Docker does: without lines, wrapping or truncation."""
    lines = [[_printable(cell) for cell in row] for row in (head, *rows)]
    # A value with a tab, of a user's template, makes its row longer than the head.
    widths = [max(map(len, column)) for column in zip_longest(*lines, fillvalue="")]
    padded = (
        [cell.ljust(width) for cell, width in zip(line, widths, strict=False)] for line in lines
    )
    print_line("\n".join("   ".join(line).rstrip() for line in padded))


def _printable(text: str) -> str:
    """Return `text` with control characters escaped: a command may have line breaks."""
    if text.isprintable():
        return text
    return "".join(item if item.isprintable() else repr(item)[1:-1] for item in text)


def network_settings(found: ContainerRecord) -> dict[str, Any]:
    """Return `NetworkSettings` of `mydocker inspect`."""
    aliases = {item.network: item.aliases for item in found.connections}
    endpoints = found.state.endpoints
    return {
        **addresses(endpoints[0] if endpoints else None),
        "Ports": bindings(
            (_port(item), item.address, str(item.host_port)) for item in found.state.ports
        ),
        "Networks": {
            item.network: {**addresses(item), "Aliases": aliases.get(item.network, [])}
            for item in endpoints
        },
    }


def addresses(endpoint: EndpointRecord | None) -> dict[str, Any]:
    """Return a container's addresses on one network."""
    if endpoint is None:
        return {"IPAddress": "", "IPPrefixLen": 0, "Gateway": "", "MacAddress": ""}
    ip, _, prefix = endpoint.address.partition("/")
    ip6, _, prefix6 = endpoint.address6.partition("/")
    return {
        "IPAddress": ip,
        "IPPrefixLen": int(prefix),
        "Gateway": endpoint.gateway,
        "MacAddress": endpoint.mac,
        "GlobalIPv6Address": ip6,
        "GlobalIPv6PrefixLen": int(prefix6 or 0),
        "IPv6Gateway": endpoint.gateway6,
    }


def bindings(ports: Iterable[tuple[str, str, str]]) -> dict[str, list[dict[str, str]]]:
    """Return the host sockets of each container port.

    Each item of `ports` has a container port, a host address and a host port.
    """
    found: dict[str, list[dict[str, str]]] = {}
    for port, address, host_port in ports:
        found.setdefault(port, []).append({"HostIp": address, "HostPort": host_port})
    return found


def requested_ports(publish: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the requested port mappings, as input for `bindings`."""
    from runtime.network import ports

    for text in publish:
        for item in ports.parse("show a port", text):
            low, high = item.low or "", f"-{item.high}" if item.high != item.low else ""
            yield f"{item.port}/{item.protocol}", item.address, f"{low}{high}"


def port_lines(publications: Sequence[Publication]) -> list[str]:
    """Return published ports as `mydocker ps` shows them: 0.0.0.0:8080->80/tcp."""
    return [f"{_host_socket(item)}->{_port(item)}" for item in publications]


def port_rows(publications: Sequence[Publication], wanted: str = "") -> list[str]:
    """Return the lines of `mydocker port`.

    With `wanted`, a container port such as `80` or `80/udp`, the lines have only its host sockets.
    """
    if not wanted:
        return [f"{_port(item)} -> {_host_socket(item)}" for item in publications]
    port = wanted if "/" in wanted else f"{wanted}/tcp"
    return [_host_socket(item) for item in publications if _port(item) == port]


def _port(item: Publication) -> str:
    return f"{item.port}/{item.protocol}"


def _host_socket(item: Publication) -> str:
    address = f"[{item.address}]" if ":" in item.address else item.address
    return f"{address}:{item.host_port}"


def network(found: NetworkConfig, containers: Sequence[ContainerRecord]) -> dict[str, Any]:
    """Return the entry of a network in `network inspect`, with its running `containers`."""
    pools = [{"Subnet": found.subnet, "Gateway": found.gateway, "IPRange": found.ip_range}]
    if found.subnet6:
        pools.append({"Subnet": found.subnet6, "Gateway": found.gateway6})
    if found.driver == "bridge":
        options = {
            "com.docker.network.bridge.name": found.bridge,
            "com.docker.network.bridge.enable_icc": str(found.icc).lower(),
        }
    else:
        options = {"parent": found.parent}
    return {
        "Name": found.name,
        "Id": found.id,
        "Created": found.created,
        "Scope": "local",
        "Driver": found.driver,
        "EnableIPv6": bool(found.subnet6),
        "IPAM": {"Driver": "default", "Config": pools},
        "Internal": found.internal,
        "Containers": {
            item.id: {
                "Name": item.name,
                "MacAddress": endpoint.mac,
                "IPv4Address": endpoint.address,
                "IPv6Address": endpoint.address6,
            }
            for item in containers
            for endpoint in item.state.endpoints
            if endpoint.network == found.name
        },
        "Options": {**options, "com.docker.network.driver.mtu": str(found.mtu)},
    }


# Not compiled at import: most commands print no template.
_PART: Final = r"(?s)\{\{(.*?)\}\}"
_WORD: Final = r'"(?:[^"\\]|\\.)*"|[^\s"]+'
_FIELD: Final = r"\.|(\.[A-Za-z0-9_]+)+"
_ARITY: Final = {"json": 2, "len": 2, "index": 3}


def render(template: str, data: Any) -> str:
    """Fill in a Go template; `InvalidError` for unknown fields and functions."""
    if template == "json":
        return json.dumps(data)
    # texts at even places, the words of expressions at odd ones
    parts: list[Any] = re.split(_PART, template.replace("\\t", "\t").replace("\\n", "\n"))
    parts[1::2] = [re.findall(_WORD, part.strip("- ")) for part in parts[1::2]]
    if any("{{" in text for text in parts[::2]):
        raise _wrong(template, "there is an opening {{ that nothing closes")
    return _filled(parts, data, template)


def _filled(parts: Sequence[Any], data: Any, template: str) -> str:
    filled, position = "", 0
    while position < len(parts):
        part = parts[position]
        if isinstance(part, str):
            filled += part
        elif part[:1] == ["range"] and len(part) == 2:
            end = _end(parts, position, template)
            over = _value(part[1:], data, template) or ()
            items = over.values() if isinstance(over, Mapping) else over
            if isinstance(items, str) or not isinstance(items, Iterable):
                raise _wrong(template, f"{part[1]} is nothing to go through")
            body = parts[position + 1 : end]
            filled += "".join(_filled(body, item, template) for item in items)
            position = end
        else:
            filled += _shown(_value(part, data, template))
        position += 1
    return filled


def _end(parts: Sequence[Any], start: int, template: str) -> int:
    """Return the position of the `end` of the range at `start`."""
    depth = 0
    for position in range(start, len(parts)):
        depth += {"range": 1, "end": -1}.get("".join(parts[position][:1]), 0)
        if not depth:
            return position
    raise _wrong(template, "{{range …}} has no {{end}}")


def _value(words: Sequence[str], data: Any, template: str) -> Any:
    if len(words) == 1 and re.fullmatch(_FIELD, words[0]):
        for name in filter(None, words[0].split(".")):
            if not isinstance(data, Mapping) or name not in data:
                raise _wrong(template, f"there is no {words[0]}{_choice(data)}")
            data = data[name]
        return data
    if not words or _ARITY.get(words[0]) != len(words):
        raise _wrong(template, f"{{{{{' '.join(words)}}}}} is more than mydocker understands")
    of = _value(words[1:2], data, template)
    if words[0] == "json":
        return json.dumps(of)
    if words[0] == "len":
        if not isinstance(of, Sized):
            raise _wrong(template, f"{words[1]} has no length")
        return len(of)
    try:
        key = json.loads(words[2])
        return of.get(key, "") if isinstance(of, Mapping) else of[key]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _wrong(template, f"{words[1]} has nothing at {words[2]}") from None


def _choice(data: Any) -> str:
    return f", only {', '.join(f'.{name}' for name in data)}" if isinstance(data, Mapping) else ""


def _wrong(template: str, why: str) -> InvalidError:
    return InvalidError(f"use --format {template!r}", why, remedy="--format json")


def _shown(value: Any) -> str:
    """Return a value as Go's `print` formats it."""
    match value:
        case None:
            return "<no value>"
        case bool():
            return str(value).lower()
        case Mapping():
            return f"map[{' '.join(f'{key}:{_shown(value[key])}' for key in sorted(value))}]"
        case list() | tuple():
            return f"[{' '.join(map(_shown, value))}]"
    return str(value)
