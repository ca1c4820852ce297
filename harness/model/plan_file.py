"""Plans as TOML files: users can read and edit them, and `netmodes lab` builds them.

```toml
[[network]]
name = "lan"
ipv6 = true

[[container]]
name = "web"
mode = "network:lan"       # bridge, host, none, container:NAME, attached:NETWORK
also = ["bridge"]
ports = ["0.0.0.0:8080:80/tcp"]
```

The runtime chooses the value of an absent key, as in `harness.model.plan`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal, cast, get_type_hints

import msgspec
import tomli_w

from harness.model.plan import (
    DEFAULT_NETWORK,
    Attached,
    Bridge,
    ContainerSpec,
    Host,
    Joined,
    Mode,
    NetworkSpec,
    Nothing,
    Plan,
    PlanError,
    Publish,
)

_KINDS: Final = {"network": NetworkSpec, "container": ContainerSpec}
_PLAIN: Final[dict[str, Mode]] = {"bridge": Bridge(), "host": Host(), "none": Nothing()}
_NAMED: Final[dict[str, Callable[[str], Mode]]] = {
    "network": Bridge,
    "container": Joined,
    "attached": Attached,
}
_MODES: Final = "bridge, host, none, network:NAME, container:NAME, attached:NETWORK"


def dumps(plan: Plan) -> str:
    """Return the plan as TOML text; fields that have their default value are left out."""
    entries = {
        "network": [_written(item) for item in plan.networks],
        "container": [_written(item) for item in plan.containers],
    }
    return tomli_w.dumps({kind: items for kind, items in entries.items() if items})


def loads(text: str) -> Plan:
    """Return the plan in a TOML text; a `PlanError` names the wrong entry and the valid values."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"the plan is not TOML: {error}") from error
    _refuse_unknown("the plan", document, _KINDS)
    made: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    for kind, entries in document.items():
        if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
            raise PlanError(f"write each {kind} under [[{kind}]]")
        made[kind] = [_read(kind, entry) for entry in entries]
    return Plan(tuple(made["network"]), tuple(made["container"]))


def read(path: Path) -> Plan:
    """Read a plan from a file; a `PlanError` also names the file."""
    try:
        return loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from error
    except (PlanError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {error}") from error


# --- one entry -------------------------------------------------------------------


def _written(item: NetworkSpec | ContainerSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if value != _default(field):
            found[field.name] = _plain(field.name, value)
    return found


def _default(field: Field[Any]) -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _plain(name: str, value: Any) -> Any:
    match name:
        case "mode":
            return _mode_text(value)
        case "ports":
            return [_port_text(item) for item in value]
        case "sysctls" | "hosts":
            return {key: str(item) for key, item in value}
        case _:
            return msgspec.to_builtins(value, enc_hook=str)


def _read(kind: str, entry: Mapping[str, Any]) -> Any:
    known = {field.name: field for field in fields(_KINDS[kind])}
    where = f"{kind} {entry['name']!r}" if "name" in entry else f"a {kind} without a name"
    _refuse_unknown(where, entry, known)
    if "name" not in entry:
        raise PlanError(f"{where}: every {kind} needs a name")
    try:
        values = {name: _value(name, value) for name, value in entry.items()}
    except ValueError as error:
        raise PlanError(f"{where}: {error}") from error
    return _KINDS[kind](**values)


def _value(name: str, value: Any) -> Any:
    try:
        found = msgspec.convert(value, _TYPES[name], dec_hook=lambda kind, text: kind(str(text)))
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {error}") from error
    match name:
        case "mode":
            return _mode(found)
        case "ports":
            return tuple(map(_port, found))
        case "dns":
            return tuple(map(ip_address, found))
        case "hosts":
            return tuple((host, ip_address(text)) for host, text in found.items())
        case "sysctls":
            return tuple((key, str(item)) for key, item in found.items())
        case _:
            return found


_TYPES: Final[dict[str, Any]] = {
    **get_type_hints(NetworkSpec),
    **get_type_hints(ContainerSpec),
    "mode": str,
    "ports": list[str],
    "dns": list[str],
    "hosts": dict[str, str],
    "sysctls": dict[str, Any],
}
"""Type of each key's value in the file."""


def _refuse_unknown(where: str, entry: Mapping[str, Any], known: Mapping[str, object]) -> None:
    for name in entry:
        if name not in known:
            close = get_close_matches(name, known)
            meant = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
            raise PlanError(f"{where} has an unknown key {name!r}{meant}")


# --- modes and ports -------------------------------------------------------------


def _mode_text(mode: Mode) -> str:
    match mode:
        case Bridge(network=name) if name != DEFAULT_NETWORK:
            return f"network:{name}"
        case Attached(network=name):
            return f"attached:{name}"
        case _:
            return str(mode)


def _mode(text: str) -> Mode:
    if text in _PLAIN:
        return _PLAIN[text]
    kind, colon, name = text.partition(":")
    if not colon or not name or kind not in _NAMED:
        raise ValueError(f"unknown mode {text!r}; the modes are {_MODES}")
    return _NAMED[kind](name)


def _port_text(port: Publish) -> str:
    where = ""
    if port.host_ip is not None:
        where = f"[{port.host_ip}]:" if port.host_ip.version == 6 else f"{port.host_ip}:"
    host, own = (
        f"{first}-{first + port.count - 1}" if port.count > 1 and first else f"{first}"
        for first in (port.host_port, port.container_port)
    )
    return f"{where}{host}:{own}/{port.protocol}"


def _port(text: str) -> Publish:
    wrong = ValueError(
        f"{text!r} is not a port mapping; write [ADDRESS:]HOST:CONTAINER[/tcp|udp|sctp]"
    )
    rest, _, protocol = text.partition("/")
    where, _, own = rest.rpartition(":")
    address, _, host = where.rpartition(":")
    if (protocol or "tcp") not in ("tcp", "udp", "sctp"):
        raise wrong
    try:
        (first, count), (host_first, host_count) = (_range(item) for item in (own, host))
        ip = ip_address(address.strip("[]")) if address else None
    except ValueError:
        raise wrong from None
    if not first or host_count not in (count, 1) or (host_first and host_count != count):
        raise wrong
    chosen = cast("Literal['tcp', 'udp', 'sctp']", protocol or "tcp")
    return Publish(host_first, first, chosen, ip, count)


def _range(text: str) -> tuple[int, int]:
    """Parse a port or a range of ports; return the first port and the number of ports."""
    first, dash, last = text.partition("-")
    low, high = int(first), int(last) if dash else int(first)
    if not 0 <= low <= high <= 65535:
        raise ValueError(text)
    return low, high - low + 1
