"""What mydocker remembers: containers, endpoints, networks.

Plain named tuples that turn into JSON and back. `ContainerConfig` never changes
once written; `ContainerState` is replaced as a whole.
"""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any, Literal, NamedTuple

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

Status = Literal["created", "starting", "running", "exited", "removing"]
Driver = Literal["bridge", "macvlan"]

DEFAULT_NETWORK = "bridge"


class NetworkConfig(NamedTuple):
    """A network. Addresses are text, `mtu` in bytes; `""` where there is none.

    `ready` turns true once the kernel has all of it. Of the driver `macvlan` has a
    `parent`, an interface of the host, and `bridge` a bridge.
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
        """The bridge's own addresses, IPv4 first."""
        found: list[Interface] = [IPv4Interface(f"{self.gateway}/{self.subnet.split('/')[1]}")]
        if self.subnet6:
            found.append(IPv6Interface(f"{self.gateway6}/{self.subnet6.split('/')[1]}"))
        return found

    @property
    def subnets(self) -> list[Network]:
        """Its subnets, IPv4 first."""
        return [gateway.network for gateway in self.gateways]


class Connection(NamedTuple):
    """A network that a container is to be on, and what was asked for there; `""`: nothing."""

    network: str
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    aliases: list[str] = []  # noqa: RUF012 - a named tuple's default is never changed


class EndpointRecord(NamedTuple):
    """Where a container is on one network.

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
    """A port of the host that leads to a port of a container, while that runs.

    `address` is the host's (`0.0.0.0` and `::` are all of a family), `fd` the number of
    the descriptor by which the container's pid 1 keeps the port.
    """

    protocol: str
    address: str
    host_port: int
    port: int
    fd: int = -1


class ContainerConfig(NamedTuple):
    """What was asked for when the container was created."""

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
    """Ports as the user wrote them, see `runtime.network.ports`."""
    publish_all: bool = False
    dns: list[str] = []  # noqa: RUF012
    add_hosts: list[str] = []  # noqa: RUF012
    tty: bool = False
    auto_remove: bool = False
    created: str = ""
    image_id: str = ""
    """The image that `image` named then."""
    entrypoint: list[str] = []  # noqa: RUF012
    """The part of `command`, at its beginning, that is the entrypoint."""
    user: str = ""
    exposed: list[str] = []  # noqa: RUF012
    labels: dict[str, str] = {}  # noqa: RUF012
    stop_signal: str = ""
    binds: list[str] = []  # noqa: RUF012
    """What it sees of the host's files, as `source:target[:ro]` (`runtime.init.binds`)."""
    read_only: bool = False
    cap_add: list[str] = []  # noqa: RUF012
    cap_drop: list[str] = []  # noqa: RUF012
    memory: int = 0
    """At most so many bytes; 0 is no limit, as below."""
    nano_cpus: int = 0
    """At most so many billionths of a processor."""
    pids_limit: int = 0


class ContainerState(NamedTuple):
    """What has become of a container.

    `pid` is its pid 1 as the host sees it and `born` that process's start time in
    clock ticks since boot: together they name one process for good.
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
    """The networks it is to be on; `None`: the one it was created for."""
    changing: str = ""
    """The interface that is being plugged in or taken away at this moment."""
    ports: tuple[Publication, ...] = ()
    rules: int = -1
    """The number of the descriptor of pid 1's that the rules about its ports belong to."""
    paused: bool = False
    """Whether its processes are, or are about to be, frozen."""


class ContainerRecord(NamedTuple):
    """One container: what was asked for and what has become of it."""

    config: ContainerConfig
    state: ContainerState
    console: int = -1
    """Its terminal's master, for the caller who just started it attached to one."""

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.config.id

    @property
    def name(self) -> str:
        """Its unique name."""
        return self.config.name

    @property
    def running(self) -> bool:
        """Whether its pid 1 is alive."""
        return self.state.status == "running"

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The networks that it is to be on, for one with a network of its own."""
        if self.state.connections is not None:
            return self.state.connections
        config = self.config
        return (
            Connection(config.network, config.ip, config.ip6, config.mac, list(config.aliases)),
        )


def is_mac(text: str) -> bool:
    """Whether `text` is written as a MAC address in full, lower case."""
    return re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", text) is not None


def state_to_json(state: ContainerState) -> dict[str, Any]:
    """A state as plain JSON data."""
    connections = state.connections
    return {
        **state._asdict(),
        "endpoints": [item._asdict() for item in state.endpoints],
        "connections": None if connections is None else [item._asdict() for item in connections],
        "ports": [item._asdict() for item in state.ports],
    }


def state_from_json(data: dict[str, Any]) -> ContainerState:
    """The inverse of `state_to_json`."""
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
