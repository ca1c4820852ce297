"""What can be asked of a container, checked before anything is made."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Final, TypedDict

from runtime.errors import InvalidError
from runtime.image.config import ImageDefaults
from runtime.init.binds import parse
from runtime.init.security import capabilities
from runtime.network import modes
from runtime.records import DEFAULT_NETWORK, Connection, ContainerConfig, is_mac
from runtime.store import NAME, NAME_RULE, now

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Not compiled yet: most runs ask for none of it.
_HOSTNAME: Final = r"(?=.{1,64}$)[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9-]+)*"
_ENVIRONMENT: Final = r"[^=\0]+"
_SYSCTL: Final = r"[a-z0-9_]+([./][a-zA-Z0-9_-]+)+"
_LEAST_MEMORY: Final = 6 * 1024 * 1024
_MOST_CPUS: Final = 1_000_000
"""Processors; more than any machine has."""
_LEAST_CPUS: Final = 10_000_000
_LEAST_PIDS: Final = 2
_NAMESPACED: Final = ("net.", "kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")


class ContainerOptions(TypedDict, total=False):
    """Everything that may be left out when a container is created."""

    name: str
    network: str
    """`bridge`, `none`, `host`, `container:<name or id>`, or the name of a network."""
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
    """Publish every port that is exposed, on free ports of the host."""
    expose: Sequence[str]
    """Ports besides those that the image exposes, as `port[/protocol]`."""
    dns: Sequence[str]
    add_hosts: Sequence[str]
    """More lines for /etc/hosts, as `name:address`."""
    entrypoint: Sequence[str]
    """In place of the image's; the image's command is left out then too."""
    user: str
    """`name or uid[:group or gid]`, as the image's own files know them."""
    tty: bool
    binds: Sequence[str]
    """What it sees of the host's files and of volumes, as `source:target[:ro]`."""
    read_only: bool
    """Whether its own file system cannot be written to; volumes and /dev/shm can."""
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    memory: int
    """At most so many bytes."""
    cpus: float
    """At most so many processors' time."""
    pids_limit: int
    """At most so many processes and threads, pid 1 among them."""
    auto_remove: bool
    """Remove the container once it has ended."""


def configure(
    identity: str,
    image: str,
    command: Sequence[str],
    options: ContainerOptions,
    *,
    image_id: str = "",
    defaults: ImageDefaults = ImageDefaults(),  # noqa: B008 - a named tuple never changes
) -> ContainerConfig:
    """The container that is asked for; `InvalidError` names the option that cannot be.

    `defaults` are what its image asks for where nobody asks otherwise.
    """
    name = options.get("name") or f"mydocker-{identity[:12]}"
    asked = f"create container {name!r}"
    mode = modes.parse(options.get("network", DEFAULT_NETWORK))
    modes.refuse(mode, asked, _given(options))
    publish = list(options.get("publish", ()))
    exposed = [*defaults.exposed, *options.get("expose", ())]
    if publish or exposed:
        from runtime.network import ports  # brings sockets and nftables

        for text in publish:
            ports.parse(asked, text)
        ports.exposed(asked, options.get("expose", ()))
    own = "entrypoint" in options
    entrypoint = list(options["entrypoint"]) if own else defaults.entrypoint
    arguments = list(command) or ([] if own else defaults.command)
    if not entrypoint and not arguments:
        raise InvalidError(asked, "there is no command to execute", remedy="run IMAGE COMMAND")
    workdir = options.get("workdir") or f"/{defaults.workdir.lstrip('/')}"
    if not workdir.startswith("/"):
        raise InvalidError(asked, f"the working directory {workdir!r} is not absolute")
    hostname = options.get("hostname") or _default_hostname(mode.kind, identity)
    if options.get("hostname") and not re.fullmatch(_HOSTNAME, hostname):
        raise InvalidError(asked, f"the hostname {hostname!r} is malformed")
    for text in options.get("dns", ()):
        _check_address(asked, "dns", text)
    for entry in options.get("add_hosts", ()):
        host, _, address = entry.partition(":")
        if not host or not address:
            raise InvalidError(
                asked, f"--add-host {entry!r} is not name:address", remedy="db:192.0.2.7, say"
            )
        _check_address(asked, "add-host", address)
    network = f"container:{mode.name}" if mode.kind == "container" else mode.name or mode.kind
    first = connection(
        asked,
        network,
        ip=options.get("ip", ""),
        ip6=options.get("ip6", ""),
        mac=options.get("mac", ""),
        aliases=options.get("aliases", ()),
    )
    sysctls = options.get("sysctls", {})
    for key in sysctls:
        if not re.fullmatch(_SYSCTL, key) or not key.startswith(_NAMESPACED):
            raise InvalidError(
                asked,
                f"the sysctl {key!r} does not belong to a namespace",
                remedy=", ".join(f"{prefix}…" for prefix in _NAMESPACED),
            )
    binds = [parse(asked, text) for text in options.get("binds", ())]
    if len({item.target for item in binds}) < len(binds):
        raise InvalidError(asked, "-v names one place in the container twice")
    capabilities(asked, options.get("cap_add", ()), options.get("cap_drop", ()))
    if defaults.stop_signal:
        number_of(asked, defaults.stop_signal)
    memory, cpus, pids = _limits(asked, options)
    return ContainerConfig(
        id=identity,
        name=name,
        image=image,
        command=[*entrypoint, *arguments],
        network=network,
        env=_environment(asked, hostname, defaults, options),
        workdir=workdir,
        hostname=hostname,
        ip=first.ip,
        ip6=first.ip6,
        mac=first.mac,
        aliases=first.aliases,
        sysctls=dict(sysctls),
        publish=publish,
        publish_all=options.get("publish_all", False),
        dns=list(options.get("dns", ())),
        add_hosts=list(options.get("add_hosts", ())),
        tty=options.get("tty", False),
        auto_remove=options.get("auto_remove", False),
        created=now(),
        image_id=image_id,
        entrypoint=entrypoint,
        user=options.get("user") or defaults.user,
        exposed=exposed,
        labels=defaults.labels,
        stop_signal=defaults.stop_signal,
        binds=[str(item) for item in binds],
        read_only=options.get("read_only", False),
        cap_add=list(options.get("cap_add", ())),
        cap_drop=list(options.get("cap_drop", ())),
        memory=memory,
        nano_cpus=cpus,
        pids_limit=pids,
    )


def _limits(asked: str, options: ContainerOptions) -> tuple[int, int, int]:
    memory, pids = options.get("memory", 0), options.get("pids_limit", 0)
    wanted = options.get("cpus", 0)
    if not 0 <= wanted <= _MOST_CPUS:  # nor is it a number, perhaps
        raise InvalidError(asked, f"{wanted:g} processors cannot be had", remedy="--cpus 1.5, say")
    cpus = round(wanted * 1_000_000_000)
    if memory and memory < _LEAST_MEMORY:
        raise InvalidError(asked, f"with {memory} bytes of memory nothing can start", remedy="6m")
    if cpus and cpus < _LEAST_CPUS:
        raise InvalidError(asked, "the kernel gives out no less than 0.01 of a processor")
    if pids < 0 or 0 < pids < _LEAST_PIDS:
        raise InvalidError(asked, f"{pids} processes are not enough for pid 1 and a command")
    return memory, cpus, pids


def _given(options: ContainerOptions) -> list[str]:
    """The options that a network mode may contradict, by the names users know."""
    plain = {
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
    return [name for name, value in plain.items() if value]


def _default_hostname(kind: modes.Kind, identity: str) -> str:
    return os.uname().nodename if kind == "host" else identity[:12]


def connection(
    asked: str,
    network: str,
    *,
    ip: str = "",
    ip6: str = "",
    mac: str = "",
    aliases: Sequence[str] = (),
) -> Connection:
    """What is asked for on a network; `InvalidError` names what is malformed."""
    _check_address(asked, "ip", ip, 4)
    _check_address(asked, "ip6", ip6, 6)
    mac = mac.lower().replace("-", ":")
    if mac and (not is_mac(mac) or int(mac[:2], 16) & 1):
        raise InvalidError(asked, f"{mac!r} is no unicast MAC address like 02:42:ac:11:00:05")
    if aliases and network == DEFAULT_NETWORK:
        raise InvalidError(
            asked, "an alias cannot go with the default network", remedy="mydocker network create"
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
        env["HOME"] = "/root"  # another user's is known once the image's files are there
    if options.get("tty"):
        env["TERM"] = "xterm"
    env |= dict(entry.split("=", 1) for entry in defaults.env)
    for key, value in options.get("env", {}).items():
        if not re.fullmatch(_ENVIRONMENT, key) or "\0" in value:
            raise InvalidError(asked, f"the variable {key!r} is malformed")
        env[key] = value
    return [f"{key}={value}" for key, value in env.items()]


_REAL_TIME: Final = r"RT(MIN|MAX)([+-]\d+)?"


def number_of(asked: str, text: str) -> int:
    """The number of a signal; `InvalidError` where there is none of that name."""
    name = text.upper().removeprefix("SIG")
    number = _number(name)
    if number not in signal.valid_signals():
        raise InvalidError(asked, f"there is no signal {text!r}", remedy="kill -l")
    return number


def _number(name: str) -> int:
    if name.isdigit():
        return int(name)
    if found := re.fullmatch(_REAL_TIME, name):
        return int(signal.Signals[f"SIGRT{found[1]}"]) + int(found[2] or 0)
    return int(getattr(signal.Signals, f"SIG{name}", 0))
