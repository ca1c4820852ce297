"""Records of containers, endpoints and networks.

The records are named tuples that convert to JSON and back. `ContainerConfig` never changes
once written; `ContainerState` is replaced as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any, Final, Literal, NamedTuple

from runtime.errors import InvalidError


def resolves_names(ends: Sequence[EndpointRecord | Connection]) -> bool:
    """Return whether one of a container's networks has name resolution between its members."""
    return any(item.network != DEFAULT_NETWORK for item in ends)


Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

Status = Literal["created", "starting", "running", "exited", "removing"]
Driver = Literal["bridge", "macvlan"]
NetworkKind = Literal["bridge", "host", "none", "container"]

DEFAULT_NETWORK = "bridge"
NETWORK_MODES: Final = "bridge, none, host, container:<name or id>, or the name of a network"
NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
NAME_RULE: Final = "at most 128 letters, digits, '_', '.' and '-', beginning with a letter or digit"


class NetworkMode(NamedTuple):
    """Network mode of a container: its kind, and the network or container that it names."""

    kind: NetworkKind
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> NetworkMode:
        """Parse a mode; `InvalidError` lists the modes."""
        if text in ("host", "none"):
            return cls("host" if text == "host" else "none")
        if text in ("bridge", "default", ""):
            return cls("bridge", DEFAULT_NETWORK)
        prefix, colon, rest = text.partition(":")
        if colon and prefix == "container" and rest:
            return cls("container", rest)
        if NAME.fullmatch(text):
            return cls("bridge", text)
        raise InvalidError(f"use the network mode {text!r}", "no such mode", remedy=NETWORK_MODES)


class NetworkConfig(NamedTuple):
    """Configuration of a network.

    Addresses are text, `mtu` is in bytes; `""` means that there is no value. `ready` is true once
    the kernel has all parts of the network. `parent` (driver `macvlan`) is an interface of the
    host, `bridge` (driver `bridge`) the name of the network's bridge.
    """

    id: str
    name: str
    bridge: str
    subnet: str
    gateway: str
    subnet6: str = ""
    gateway6: str = ""
    ip_range: str = ""
    internal: bool = False
    icc: bool = True
    mtu: int = 1500
    created: str = ""
    ready: bool = False
    driver: Driver = "bridge"
    parent: str = ""

    @property
    def gateways(self) -> list[Interface]:
        """Addresses of the bridge, which are the gateways of the containers; IPv4 first."""
        found: list[Interface] = [IPv4Interface(f"{self.gateway}/{self.subnet.split('/')[1]}")]
        if self.subnet6:
            found.append(IPv6Interface(f"{self.gateway6}/{self.subnet6.split('/')[1]}"))
        return found

    @property
    def subnets(self) -> list[Network]:
        """Subnets of the network, IPv4 first."""
        return [gateway.network for gateway in self.gateways]


class Connection(NamedTuple):
    """A container's connection to a network, with the requested options; `""` is unset."""

    network: str
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    aliases: list[str] = []  # noqa: RUF012 - a named tuple's default is never changed


class EndpointRecord(NamedTuple):
    """A container's endpoint on one network.

    `veth` is the end that stays in the host, `""` for a macvlan.
    """

    network: str
    interface: str
    veth: str
    mac: str
    address: str
    gateway: str = ""
    address6: str = ""
    gateway6: str = ""


class Publication(NamedTuple):
    """A host port that is forwarded to a container port while the container runs.

    `address` is the host's address; `0.0.0.0` and `::` mean all addresses of a family. `fd` is the
    number of the descriptor in pid 1 that keeps the port bound.
    """

    protocol: str
    address: str
    host_port: int
    port: int
    fd: int = -1


class ContainerConfig(NamedTuple):
    """Configuration of a container, as requested when it was created."""

    id: str
    name: str
    image: str
    command: list[str]
    network: str = DEFAULT_NETWORK
    env: list[str] = []  # noqa: RUF012 - a named tuple's default is never changed
    workdir: str = "/"
    hostname: str = ""
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    aliases: list[str] = []  # noqa: RUF012
    sysctls: dict[str, str] = {}  # noqa: RUF012
    publish: list[str] = []  # noqa: RUF012
    """Ports in the user's notation, see `runtime.network.ports`."""
    publish_all: bool = False
    dns: list[str] = []  # noqa: RUF012
    add_hosts: list[str] = []  # noqa: RUF012
    tty: bool = False
    auto_remove: bool = False
    created: str = ""
    image_id: str = ""
    """ID of the image that `image` named at creation."""
    entrypoint: list[str] = []  # noqa: RUF012
    """The first words of `command`, which are the entrypoint."""
    user: str = ""
    exposed: list[str] = []  # noqa: RUF012
    labels: dict[str, str] = {}  # noqa: RUF012
    stop_signal: str = ""
    binds: list[str] = []  # noqa: RUF012
    """Mounts of host files and volumes, as `source:target[:ro]` (`runtime.init.rootfs`)."""
    read_only: bool = False
    cap_add: list[str] = []  # noqa: RUF012
    cap_drop: list[str] = []  # noqa: RUF012
    memory: int = 0
    """Memory limit in bytes; 0 is no limit, as below."""
    nano_cpus: int = 0
    """CPU limit in billionths of a CPU."""
    pids_limit: int = 0

    @property
    def mode(self) -> NetworkMode:
        """Network mode of the container."""
        return NetworkMode.parse(self.network)

    @property
    def publishes(self) -> bool:
        """True if the container publishes ports."""
        return bool(self.publish) or self.publish_all


class ContainerState(NamedTuple):
    """Current state of a container.

    `pid` is its pid 1 in the host's pid namespace and `born` the start time of that process in
    clock ticks since boot. Together they identify one process uniquely.
    """

    status: Status = "created"
    pid: int = 0
    born: int = 0
    started: str = ""
    finished: str = ""
    exit_code: int | None = None
    error: str = ""
    endpoints: tuple[EndpointRecord, ...] = ()
    connections: tuple[Connection, ...] | None = None
    """Networks that the container is connected to; `None` means the network at its creation."""
    changing: str = ""
    """Interface that is being added or removed."""
    ports: tuple[Publication, ...] = ()
    rules: int = -1
    """Number of the descriptor in pid 1 that owns the rules of the published ports."""
    paused: bool = False
    """True if its processes are frozen, or about to be."""


class ContainerRecord(NamedTuple):
    """One container: its configuration and its state."""

    config: ContainerConfig
    state: ContainerState
    console: int = -1
    """Master of its terminal, for a caller that has just started the container with a terminal."""

    @property
    def id(self) -> str:
        """Id of the container: 64 hexadecimal digits."""
        return self.config.id

    @property
    def name(self) -> str:
        """Unique name of the container."""
        return self.config.name

    @property
    def running(self) -> bool:
        """True if the container's pid 1 is alive."""
        return self.state.status == "running"

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Networks that the container is connected to, if it has its own netns."""
        if self.state.connections is not None:
            return self.state.connections
        config = self.config
        return (
            Connection(config.network, config.ip, config.ip6, config.mac, list(config.aliases)),
        )


def is_mac(text: str) -> bool:
    """Return True if `text` is a complete MAC address in lower case."""
    return re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", text) is not None


def state_to_json(state: ContainerState) -> dict[str, Any]:
    """Return a state as plain JSON data."""
    connections = state.connections
    return {
        **state._asdict(),
        "endpoints": [item._asdict() for item in state.endpoints],
        "connections": None if connections is None else [item._asdict() for item in connections],
        "ports": [item._asdict() for item in state.ports],
    }


def state_from_json(data: dict[str, Any]) -> ContainerState:
    """Return the state that `state_to_json` turned into `data`."""
    connections = data.pop("connections")
    return ContainerState(
        **{
            **data,
            "endpoints": tuple(EndpointRecord(**item) for item in data["endpoints"]),
            "connections": None
            if connections is None
            else tuple(Connection(**item) for item in connections),
            "ports": tuple(Publication(**item) for item in data["ports"]),
        }
    )
