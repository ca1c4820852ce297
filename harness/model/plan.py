"""Data classes for networks, containers, plans, cells, promises and observations.

The module opens no socket and no file, so plans can be drawn, compared and shrunk on any machine.
All classes are frozen; equal plans are interchangeable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

Family = Literal[4, 6]
FAMILIES: tuple[Family, ...] = (4, 6)

DEFAULT_NETWORK = "bridge"
"""Name of the runtime's default bridge network in a plan, the same for every runtime."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class PlanError(ValueError):
    """A plan contradicts itself; the message names the entry and the contradiction."""


class Protocol(StrEnum):
    """Protocol of a probe."""

    ICMP = "icmp"
    UDP = "udp"
    TCP = "tcp"


PROTOCOLS: tuple[Protocol, ...] = (Protocol.ICMP, Protocol.UDP, Protocol.TCP)


# --- modes -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bridge:
    """Mode bridge: a private network namespace with a veth pair to the bridge of `network`."""

    network: str = DEFAULT_NETWORK

    def __str__(self) -> str:
        return "bridge" if self.network == DEFAULT_NETWORK else self.network


@dataclass(frozen=True, slots=True)
class Host:
    """Mode host: the host's own network namespace."""

    def __str__(self) -> str:
        return "host"


@dataclass(frozen=True, slots=True)
class Nothing:
    """Mode none: a private network namespace with only `lo` (`--net none`)."""

    def __str__(self) -> str:
        return "none"


@dataclass(frozen=True, slots=True)
class Joined:
    """Mode container: the network namespace of another container (`--net container:<id>`)."""

    container: str

    def __str__(self) -> str:
        return f"container:{self.container}"


@dataclass(frozen=True, slots=True)
class Attached:
    """Mode none with a veth pair that is attached by hand to the bridge of `network`."""

    network: str = DEFAULT_NETWORK

    def __str__(self) -> str:
        return "none+veth"


Mode = Bridge | Host | Nothing | Joined | Attached


# --- plans -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A user-defined bridge network; the runtime chooses each value that is `None`.

    `mtu` is in bytes. `ipv6` requests an IPv6 subnet even if `subnet6` is `None`. With `icc` false
    the network's containers cannot reach each other.
    """

    name: str
    subnet: IPv4Network | None = None
    gateway: IPv4Address | None = None
    ip_range: IPv4Network | None = None
    subnet6: IPv6Network | None = None
    gateway6: IPv6Address | None = None
    ipv6: bool = False
    internal: bool = False
    icc: bool = True
    mtu: int | None = None

    @property
    def families(self) -> tuple[Family, ...]:
        """The address families that containers on the network get."""
        return (4, 6) if self.ipv6 or self.subnet6 else (4,)


@dataclass(frozen=True, slots=True)
class Publish:
    """A published port: host address and port, container port, protocol.

    Without a `host_ip` the port is published on every address of the host. A `host_port`
    of 0 means a free port. `count` is the number of consecutive ports of a range.
    """

    host_port: int
    container_port: int
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_ip: IPv4Address | IPv6Address | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container of a plan; the runtime chooses each value that is `None`.

    `also` lists networks besides the network of the container's mode, which must be `Bridge`. `dns`
    lists the container's resolvers, `hosts` the names and addresses for its `/etc/hosts`.
    """

    name: str
    mode: Mode = field(default_factory=Bridge)
    also: tuple[str, ...] = ()
    ip: IPv4Address | None = None
    ip6: IPv6Address | None = None
    mac: str | None = None
    hostname: str | None = None
    aliases: tuple[str, ...] = ()
    ports: tuple[Publish, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    dns: tuple[IPv4Address | IPv6Address, ...] = ()
    hosts: tuple[tuple[str, IPv4Address | IPv6Address], ...] = ()
    command: tuple[str, ...] | None = None

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that the container is on, beginning with the network of its mode.

        A container in mode host, none or container has none.
        """
        own = (self.mode.network,) if isinstance(self.mode, Bridge | Attached) else ()
        return (*own, *self.also)


@dataclass(frozen=True, slots=True)
class Plan:
    """Networks and containers to build, in this order.

    The default network need not be listed. Raises `PlanError` if a name is malformed, already taken
    or in `RESERVED`. Raises it too if a mode names an unknown network, or a container that does not
    come earlier in the plan.
    """

    networks: tuple[NetworkSpec, ...] = ()
    containers: tuple[ContainerSpec, ...] = ()

    def __post_init__(self) -> None:
        networks = {DEFAULT_NETWORK}
        for network in self.networks:
            _claim(network.name, networks, "network")
        names: set[str] = set()
        for container in self.containers:
            _check_networks(container, networks)
            mode = container.mode
            if isinstance(mode, Joined) and mode.container not in names:
                raise PlanError(
                    f"container {container.name!r} joins unknown container {mode.container!r}"
                )
            if container.name in RESERVED:
                raise PlanError(f"container name {container.name!r} is reserved for a cell")
            _claim(container.name, names, "container")

    def container(self, name: str) -> ContainerSpec:
        """Return the container called `name`; raise `KeyError` if there is none."""
        return {item.name: item for item in self.containers}[name]

    def network(self, name: str) -> NetworkSpec:
        """Return the network called `name`; the default network needs no entry in the plan."""
        known = {item.name: item for item in (NetworkSpec(DEFAULT_NETWORK), *self.networks)}
        return known[name]

    def home(self, name: str) -> ContainerSpec:
        """Return the container that owns the netns of `name`: itself, or the one that it joins."""
        container = self.container(name)
        while isinstance(container.mode, Joined):
            container = self.container(container.mode.container)
        return container

    def with_container(self, container: ContainerSpec) -> Plan:
        """Return a copy of this plan with `container` added."""
        return replace(self, containers=(*self.containers, container))

    def with_network(self, network: NetworkSpec) -> Plan:
        """Return a copy of this plan with `network` added."""
        return replace(self, networks=(*self.networks, network))


def _check_networks(container: ContainerSpec, known: set[str]) -> None:
    if container.also and not isinstance(container.mode, Bridge):
        raise PlanError(
            f"container {container.name!r} is in mode {container.mode}: it cannot be on "
            f"{', '.join(container.also)} too"
        )
    for name in container.networks:
        if name not in known:
            raise PlanError(f"container {container.name!r} is on unknown network {name!r}")
        if container.networks.count(name) > 1:
            raise PlanError(f"container {container.name!r} is on network {name!r} twice")


def _claim(name: str, taken: set[str], kind: str) -> None:
    if not _NAME.fullmatch(name):
        raise PlanError(f"{kind} name {name!r} is malformed: use letters, digits, '_', '.', '-'")
    if name in taken:
        raise PlanError(f"{kind} name {name!r} is taken")
    taken.add(name)


# --- cells -----------------------------------------------------------------

SELF = "self"
LOOPBACK = "loopback"
GATEWAY = "gateway"
HOST = "host"
INTERNET = "internet"
BY_NAME = "www.example.com"
NS1 = "ns1"
NS2 = "ns2"
BR0 = "br0"
ATTACKER = "attacker"

OUTSIDERS: tuple[str, ...] = (HOST, NS1, NS2, INTERNET, ATTACKER)
"""Sources that are not containers: the world's own namespaces."""

RESERVED = frozenset({*OUTSIDERS, SELF, LOOPBACK, GATEWAY, BY_NAME, BR0})
"""Names that a container cannot have, because they have another meaning in a cell."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One cell of the matrix: whether `source` reaches `target` by `protocol` over `family`.

    Source and target are names of containers or of `OUTSIDERS`. A target may also be `self`,
    `loopback`, `gateway`, `br0` or `www.example.com`.
    """

    source: str
    target: str
    protocol: Protocol
    family: Family

    def __str__(self) -> str:
        return f"{self.source} → {self.target} {self.protocol}/{self.family}"


class Outcome(StrEnum):
    """Outcome of a probe."""

    REPLY = "reply"
    WRONG_PEER = "wrong-peer"
    REJECTED = "rejected"
    NO_ROUTE = "no-route"
    NO_NAME = "no-name"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Observation:
    """Result of one probe.

    `code` names the reject (`rst`, `port-unreachable`, `admin-prohibited`, …). `ttl` is the TTL or
    hop limit of the reply at the source; `None` if the socket does not show it. TCP shows only the
    TTL of the request. `seen_ttl` and `seen_from` are the TTL and the sender of the request as the
    *target* saw them. `seen_from` is a name if the address belongs to a container or a namespace of
    the world, else the address. `rtt` is the round-trip time in seconds; comparisons ignore it.
    """

    outcome: Outcome
    code: str = ""
    ttl: int | None = None
    seen_ttl: int | None = None
    seen_from: str | None = None
    rtt: float | None = field(default=None, compare=False)
    detail: str = field(default="", compare=False)

    def __str__(self) -> str:
        outcome = f"{self.outcome}({self.code})" if self.code else self.outcome
        seen_ttl = None if self.seen_ttl == self.ttl else self.seen_ttl
        return _words(outcome, self.ttl, self.seen_from, seen_ttl)


@dataclass(frozen=True, slots=True)
class Promise:
    """The promised result of a cell; a field that is `None` or empty allows any value.

    `ttl` is the TTL of both request and reply. `seen_ttl` is the TTL of the request alone; it is
    set if a user-space process replies with new packets.

    `limited` marks a reject by a kernel whose ICMP errors are rate-limited. The limit is six errors
    for one source, then one a second (`net.ipv6.icmp.ratelimit`). A drop therefore also keeps a
    limited promise.

    `requirement` is the id of the requirement that makes the promise. `why` is the reason, a clause
    for the failure message.
    """

    outcome: Outcome
    codes: frozenset[str] = frozenset()
    ttl: int | None = None
    seen_from: str | None = None
    seen_ttl: int | None = None
    limited: bool = False
    requirement: str = ""
    why: str = ""

    def admits(self, seen: Observation) -> bool:
        """Return whether the observation `seen` keeps this promise.

        A promise without a reply promises that no request *arrives*. If the target saw the request,
        the promise is broken, even if the reply was lost. `WRONG_PEER` is the promised outcome if
        another owner of the target's address replies.
        """
        silence = self.limited and seen.outcome is Outcome.DROPPED
        if not silence and (
            seen.outcome is not self.outcome or (self.codes and seen.code not in self.codes)
        ):
            return False
        arrives = self.outcome in (Outcome.REPLY, Outcome.WRONG_PEER)
        if not arrives and seen.seen_from is not None:
            return False
        if self.seen_from is not None and seen.seen_from != self.seen_from:
            return False
        if self.seen_ttl is not None and seen.seen_ttl != self.seen_ttl:
            return False
        known = [ttl for ttl in (seen.ttl, seen.seen_ttl) if ttl is not None]
        return self.ttl is None or (bool(known) and all(ttl == self.ttl for ttl in known))

    def __str__(self) -> str:
        outcome = f"{self.outcome}({'|'.join(sorted(self.codes))})" if self.codes else self.outcome
        outcome += f" or {Outcome.DROPPED}" if self.limited else ""
        return _words(outcome, self.ttl, self.seen_from, self.seen_ttl)


def _words(outcome: str, ttl: int | None, seen_from: str | None, seen_ttl: int | None) -> str:
    parts = [str(outcome)]
    parts += [f"ttl {ttl}"] if ttl is not None else []
    parts += [f"seen as {seen_from}"] if seen_from is not None else []
    parts += [f"seen with ttl {seen_ttl}"] if seen_ttl is not None else []
    return ", ".join(parts)


def cells(
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    protocols: tuple[Protocol, ...] = PROTOCOLS,
    families: tuple[Family, ...] = FAMILIES,
) -> Iterator[Cell]:
    """Yield a cell for every combination, source by source."""
    for source in sources:
        for target in targets:
            for protocol in protocols:
                for family in families:
                    yield Cell(source, target, protocol, family)


CONTAINER01 = "container01"
CONTAINER02 = "container02"
ON_HOST = "container03-host"
JOINER = "container05-container"
ALONE = "container06-none"

CAST = Plan(
    containers=(
        ContainerSpec(CONTAINER01, Bridge()),
        ContainerSpec(CONTAINER02, Bridge()),
        ContainerSpec(ON_HOST, Host()),
        ContainerSpec(JOINER, Joined(CONTAINER01)),
        ContainerSpec(ALONE, Nothing()),
    )
)
