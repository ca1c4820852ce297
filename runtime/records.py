"""What mydocker remembers: containers, endpoints, networks.

Plain named tuples that turn into JSON and back. `ContainerConfig` never changes
once written; `ContainerState` is replaced as a whole.
"""

from __future__ import annotations

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

DEFAULT_NETWORK = "bridge"


class NetworkConfig(NamedTuple):
    """A bridge network. Addresses are text, `mtu` in bytes; `""` where there is none.

    `ready` turns true once the kernel has all of it.
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


class Endpoint(NamedTuple):
    """Where a container is on one network. `veth` is the end that stays in the host."""

    network: str
    interface: str
    veth: str
    mac: str
    address: str
    gateway: str = ""
    address6: str = ""
    gateway6: str = ""


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
    endpoints: tuple[Endpoint, ...] = ()


class Container(NamedTuple):
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


def state_to_json(state: ContainerState) -> dict[str, Any]:
    """A state as plain JSON data."""
    return {**state._asdict(), "endpoints": [item._asdict() for item in state.endpoints]}


def state_from_json(data: dict[str, Any]) -> ContainerState:
    """The inverse of `state_to_json`."""
    endpoints = tuple(Endpoint(**item) for item in data.pop("endpoints"))
    return ContainerState(**data, endpoints=endpoints)
