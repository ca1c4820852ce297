"""Options of a new container, checked before anything is created, and names of signals."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, TypedDict

from runtime.errors import InvalidError
from runtime.image.config import ImageDefaults
from runtime.init.rootfs import parse_bind
from runtime.init.security import capabilities
from runtime.records import (
    DEFAULT_NETWORK,
    NAME,
    NAME_RULE,
    Connection,
    ContainerConfig,
    NetworkKind,
    NetworkMode,
    is_mac,
)
from runtime.store import now

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Not compiled at import: most containers need none of these.
_HOSTNAME: Final = r"(?=.{1,64}$)[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9-]+)*"
_ENVIRONMENT: Final = r"[^=\0]+"
_SYSCTL: Final = r"[a-z0-9_]+([./][a-zA-Z0-9_-]+)+"
_MIN_MEMORY: Final = 6 * 1024 * 1024
_MAX_CPUS: Final = 1_000_000
"""CPUs; more than any machine has."""
_MIN_NANO_CPUS: Final = 10_000_000
_MIN_PIDS: Final = 2
_NAMESPACED: Final = ("net.", "kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")
CONTRADICTIONS: Final[dict[NetworkKind, tuple[str, ...]]] = {
    "bridge": (),
    "none": ("publish", "mac", "ip", "ip6"),
    "host": ("publish", "mac", "ip", "ip6", "net sysctl"),
    "container": (
        *("publish", "mac", "ip", "ip6", "hostname", "dns", "add-host", "alias", "net sysctl"),
    ),
}
"""Options that each mode refuses, by name; each needs a separate network namespace."""


class ContainerOptions(TypedDict, total=False):
    """Options of a new container; all may be left out. `run --help` describes them.

    An option with the name of a field of `ContainerConfig` is stored as given.
    """

    name: str
    network: str
    """`bridge`, `none`, `host`, `container:<name or id>` or the name of a network."""
    env: Mapping[str, str]
    workdir: str
    hostname: str
    ip: str
    ip6: str
    mac: str
    aliases: Sequence[str]
    sysctls: Mapping[str, str]
    publish: Sequence[str]
    """Ports, as `[address:][host port:]port[/protocol]`; see `runtime.network.ports`."""
    publish_all: bool
    """Publish all exposed ports on free ports of the host."""
    expose: Sequence[str]
    """Ports in addition to those that the image exposes, as `port[/protocol]`."""
    dns: Sequence[str]
    add_hosts: Sequence[str]
    """Additional lines of /etc/hosts, as `name:address`."""
    entrypoint: Sequence[str]
    """Replaces the image's entrypoint and command."""
    user: str
    """`name or uid[:group or gid]`; names are those of the image's files."""
    tty: bool
    binds: Sequence[str]
    """Mounts of host files and volumes, as `source:target[:ro]`."""
    read_only: bool
    """Mount the root file system read-only; volumes and /dev/shm stay writable."""
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    memory: int
    """Limit in bytes; 0 is no limit, as for the other limits."""
    cpus: float
    """Limit of CPU time, in CPUs."""
    pids_limit: int
    """Limit of processes and threads, pid 1 included."""
    auto_remove: bool
    """Remove the container when it has ended."""


def configure(
    identity: str,
    image: str,
    command: Sequence[str],
    options: ContainerOptions,
    *,
    image_id: str = "",
    defaults: ImageDefaults = ImageDefaults(),  # noqa: B008 - a named tuple never changes
) -> ContainerConfig:
    """Return the configuration of a new container; `InvalidError` names the wrong option.

    `defaults` are the image's values for options that are not given.
    """
    name = options.get("name") or f"mydocker-{identity[:12]}"
    asked = f"create container {name!r}"
    mode = NetworkMode.parse(options.get("network", DEFAULT_NETWORK))
    _refuse_contradictions(mode, asked, options)
    workdir = options.get("workdir") or f"/{defaults.workdir.lstrip('/')}"
    hostname = options.get("hostname") or (
        os.uname().nodename if mode.kind == "host" else identity[:12]
    )
    _check_options(asked, options, workdir, hostname)
    network = f"container:{mode.name}" if mode.kind == "container" else mode.name or mode.kind
    first = connection(
        asked,
        network,
        ip=options.get("ip", ""),
        ip6=options.get("ip6", ""),
        mac=options.get("mac", ""),
        aliases=options.get("aliases", ()),
    )
    entrypoint, argv = _command(asked, command, options, defaults)
    memory, cpus, pids = _limits(asked, options)
    if defaults.stop_signal:
        signal_number(asked, defaults.stop_signal)
    as_given: dict[str, Any] = {
        key: _json(value) for key, value in options.items() if key in ContainerConfig._fields
    }
    return (
        ContainerConfig(identity, name, image, argv)
        ._replace(**as_given)
        ._replace(
            name=name,
            network=network,
            env=_environment(asked, hostname, defaults, options),
            workdir=workdir,
            hostname=hostname,
            mac=first.mac,
            created=now(),
            image_id=image_id,
            entrypoint=entrypoint,
            user=options.get("user") or defaults.user,
            exposed=_exposed_ports(asked, options, defaults),
            labels=defaults.labels,
            stop_signal=defaults.stop_signal,
            binds=_binds(asked, options),
            memory=memory,
            nano_cpus=cpus,
            pids_limit=pids,
        )
    )


def _json(value: object) -> object:
    """Return an option as it is stored: any mapping as a dict, any sequence as a list."""
    match value:
        case Mapping():
            return dict(value)
        case Sequence() if not isinstance(value, str):
            return list(value)
    return value


def _check_options(asked: str, options: ContainerOptions, workdir: str, hostname: str) -> None:
    """Raise `InvalidError` for the first malformed option."""
    if not workdir.startswith("/"):
        raise InvalidError(asked, f"the working directory {workdir!r} is not absolute")
    if options.get("hostname") and not re.fullmatch(_HOSTNAME, hostname):
        raise InvalidError(asked, f"the hostname {hostname!r} is malformed")
    for text in options.get("dns", ()):
        _check_address(asked, "dns", text)
    for entry in options.get("add_hosts", ()):
        host, _, address = entry.partition(":")
        if not host or not address:
            raise InvalidError(
                asked, f"--add-host {entry!r} is not NAME:ADDRESS", remedy="--add-host db:192.0.2.7"
            )
        _check_address(asked, "add-host", address)
    for key in options.get("sysctls", {}):
        if not re.fullmatch(_SYSCTL, key) or not key.startswith(_NAMESPACED):
            raise InvalidError(
                asked,
                f"the sysctl {key!r} is not separate for each namespace",
                remedy=", ".join(f"{prefix}…" for prefix in _NAMESPACED),
            )
    capabilities(asked, options.get("cap_add", ()), options.get("cap_drop", ()))


def _command(
    asked: str, command: Sequence[str], options: ContainerOptions, defaults: ImageDefaults
) -> tuple[list[str], list[str]]:
    """Return the entrypoint and the whole command, which begins with the entrypoint."""
    given = "entrypoint" in options
    entrypoint = list(options["entrypoint"]) if given else defaults.entrypoint
    arguments = list(command) or ([] if given else defaults.command)
    if not entrypoint and not arguments:
        raise InvalidError(
            asked,
            "no command was given, and the image has none",
            remedy="mydocker run IMAGE COMMAND",
        )
    return entrypoint, [*entrypoint, *arguments]


def _exposed_ports(asked: str, options: ContainerOptions, defaults: ImageDefaults) -> list[str]:
    """Check the published ports; return the exposed ports of the image and of `expose`."""
    publish, expose = options.get("publish", ()), options.get("expose", ())
    if publish or expose:
        from runtime.network import ports  # this module imports nftables, which few containers need

        for text in publish:
            ports.parse(asked, text)
        ports.exposed(asked, expose)
    return [*defaults.exposed, *expose]


def _binds(asked: str, options: ContainerOptions) -> list[str]:
    found = [parse_bind(asked, text) for text in options.get("binds", ())]
    if len({item.target for item in found}) < len(found):
        raise InvalidError(asked, "-v mounts two sources at the same path")
    return [str(item) for item in found]


def _limits(asked: str, options: ContainerOptions) -> tuple[int, int, int]:
    memory, pids = options.get("memory", 0), options.get("pids_limit", 0)
    wanted = options.get("cpus", 0)
    if not 0 <= wanted <= _MAX_CPUS:  # NaN fails the comparison too
        raise InvalidError(
            asked, f"--cpus {wanted:g} is not a possible number of processors", remedy="--cpus 1.5"
        )
    cpus = round(wanted * 1_000_000_000)
    if memory and memory < _MIN_MEMORY:
        raise InvalidError(
            asked, f"{memory} bytes of memory are too few to start a command", remedy="--memory 6m"
        )
    if cpus and cpus < _MIN_NANO_CPUS:
        raise InvalidError(asked, "--cpus is below 0.01, the kernel's minimum")
    if pids < 0 or 0 < pids < _MIN_PIDS:
        raise InvalidError(asked, f"--pids-limit {pids} is too low for pid 1 and a command")
    return memory, cpus, pids


def _refuse_contradictions(mode: NetworkMode, asked: str, options: ContainerOptions) -> None:
    """Raise `InvalidError` if options contradict the network mode; name them as the CLI does."""
    given = {
        "publish": options.get("publish") or options.get("publish_all"),
        "mac": options.get("mac"),
        "ip": options.get("ip"),
        "ip6": options.get("ip6"),
        "hostname": options.get("hostname"),
        "dns": options.get("dns"),
        "add-host": options.get("add_hosts"),
        "alias": options.get("aliases"),
        "net sysctl": [key for key in options.get("sysctls", {}) if key.startswith("net.")],
    }
    wrong = [name for name in CONTRADICTIONS[mode.kind] if given[name]]
    if wrong:
        shown = f"container:{mode.name}" if mode.kind == "container" else mode.kind
        raise InvalidError(
            asked,
            f"{', '.join(wrong)} cannot be used with network mode {shown}",
            "the container has no network namespace and address of its own in this mode",
            "leave the option out, or use a bridge network",
        )


def connection(
    asked: str,
    network: str,
    *,
    ip: str = "",
    ip6: str = "",
    mac: str = "",
    aliases: Sequence[str] = (),
) -> Connection:
    """Check the options of a network connection and return its record.

    `InvalidError` names the malformed part.
    """
    _check_address(asked, "ip", ip, 4)
    _check_address(asked, "ip6", ip6, 6)
    mac = mac.lower().replace("-", ":")
    if mac and (not is_mac(mac) or int(mac[:2], 16) & 1):
        raise InvalidError(asked, f"{mac!r} is not a unicast MAC address such as 02:42:ac:11:00:05")
    if aliases and network == DEFAULT_NETWORK:
        raise InvalidError(
            asked, "the default network has no DNS aliases", remedy="mydocker network create"
        )
    for alias in aliases:
        if not NAME.fullmatch(alias):
            raise InvalidError(asked, f"the alias {alias!r} is malformed", remedy=NAME_RULE)
    return Connection(network, ip, ip6, mac, list(aliases))


def _check_address(asked: str, option: str, text: str, version: int | None = None) -> None:
    try:
        found = ip_address(text).version if text else version
    except ValueError as error:
        raise InvalidError(asked, f"--{option}: {error}") from None
    if version is not None and found != version:
        raise InvalidError(asked, f"--{option} {text} is an IPv{found} address")


def _environment(
    asked: str, hostname: str, defaults: ImageDefaults, options: ContainerOptions
) -> list[str]:
    env = {"PATH": _PATH, "HOSTNAME": hostname}
    if not options.get("user") and not defaults.user:
        env["HOME"] = "/root"  # other homes are read from the image's files
    if options.get("tty"):
        env["TERM"] = "xterm"
    env |= dict(entry.split("=", 1) for entry in defaults.env)
    for key, value in options.get("env", {}).items():
        if not re.fullmatch(_ENVIRONMENT, key) or "\0" in value:
            raise InvalidError(asked, f"the variable {key!r} is malformed")
        env[key] = value
    return [f"{key}={value}" for key, value in env.items()]


_REAL_TIME: Final = r"RT(MIN|MAX)([+-]\d+)?"


def signal_number(asked: str, text: str) -> int:
    """Return the number of a signal by name or number; `InvalidError` if there is none."""
    name = text.upper().removeprefix("SIG")
    number = _number(name)
    if number not in signal.valid_signals():
        raise InvalidError(asked, f"unknown signal {text!r}", remedy="kill -l")
    return number


def _number(name: str) -> int:
    if name.isdigit():
        return int(name)
    if found := re.fullmatch(_REAL_TIME, name):
        return int(signal.Signals[f"SIGRT{found[1]}"]) + int(found[2] or 0)
    return int(getattr(signal.Signals, f"SIG{name}", 0))
