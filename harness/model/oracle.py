"""The oracle: computes the promised matrix of a plan from the topology and the dialect.

Each cell is decided by the first rule of `_promise` that applies, and `_credited` assigns its
requirement. The rules take `harness.model.topology` as given: the world forwards, and the routers
and the attacker route private ranges towards the host. Every address of the host replies to every
source that can reach the host (Linux's weak host model).

A container can be on several networks. Two containers on a shared network use that network.
Otherwise a packet leaves by the network of the sender's default route. Its destination is the
target's address on the first of the target's networks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.model import plan as model
from harness.model.dialect import Dialect
from harness.model.matrix import Matrix
from harness.model.plan import (
    ATTACKER,
    BR0,
    BY_NAME,
    DEFAULT_NETWORK,
    FAMILIES,
    GATEWAY,
    HOST,
    INTERNET,
    LOOPBACK,
    NS1,
    NS2,
    OUTSIDERS,
    SELF,
    Attached,
    Bridge,
    Cell,
    ContainerSpec,
    Family,
    Host,
    Joined,
    NetworkSpec,
    Outcome,
    Plan,
    PlanError,
    Promise,
    Protocol,
)
from harness.model.topology import PRIVATE, START_TTL, Topology

LAN: Final = "the LAN"


@dataclass(frozen=True, slots=True)
class Attachment:
    """The connection of a network namespace to one link of the world.

    `name` is the owner of the addresses on the link. `link` is `None` for a container with no link
    other than `lo`. The host is on every link except the internet's. `network` is the runtime's
    network, for a container that is on one.
    """

    name: str
    link: str | None
    families: tuple[Family, ...] = FAMILIES
    network: NetworkSpec | None = None
    tap: str = ""
    """User-space process (`pasta`, …) behind the container's tap; empty without a tap."""

    @property
    def internal(self) -> bool:
        """Whether the attachment is to an internal network."""
        return self.network is not None and self.network.internal


Attachments = Mapping[str, tuple[Attachment, ...]]
"""Attachments by the name of the container or namespace."""

_AT_HOST: Final = Attachment(HOST, LAN)
_OUTSIDE: Final = (
    _AT_HOST,
    Attachment(NS1, BR0),
    Attachment(NS2, BR0),
    Attachment(INTERNET, INTERNET),
    Attachment(ATTACKER, LAN),
)


def attachments_of(plan: Plan, dialect: Dialect) -> Attachments:
    """Return the attachments of each container of a plan and of each namespace of the world.

    A joining container has the attachments of the joined container. Raises `PlanError` if a subnet
    lies outside the ranges that the world routes.
    """
    found: dict[str, tuple[Attachment, ...]] = {item.name: (item,) for item in _OUTSIDE}
    for container in plan.containers:
        home = plan.home(container.name)
        if isinstance(home.mode, Host):
            found[container.name] = (_AT_HOST,)
        else:
            found[container.name] = _of(plan, dialect, home)
    return found


def _of(plan: Plan, dialect: Dialect, home: ContainerSpec) -> tuple[Attachment, ...]:
    if not isinstance(home.mode, Bridge | Attached):
        return (Attachment(home.name, link=None, families=()),)
    found = []
    for name in home.networks:
        if name == model.DEFAULT_NETWORK and dialect.default_network != "bridge":
            tap = dialect.default_network
            found.append(Attachment(home.name, f"tap of {home.name}", tap=tap))
            continue
        network = plan.network(name)
        families = network.families
        if name == model.DEFAULT_NETWORK and dialect.bridge_address6:
            families = FAMILIES
        _check_routed(network)
        found.append(Attachment(home.name, f"network {name}", families, network))
    return tuple(found)


def _check_routed(network: NetworkSpec) -> None:
    for subnet in (network.subnet, network.subnet6):
        if subnet and not any(
            private.supernet_of(subnet)  # type: ignore[arg-type] # versions were compared
            for private in PRIVATE
            if private.version == subnet.version
        ):
            raise PlanError(
                f"network {network.name!r}: the world has no route to {subnet}; "
                f"choose one within {', '.join(map(str, PRIVATE))}"
            )


def shared_link(
    sources: Sequence[Attachment], targets: Sequence[Attachment], family: Family
) -> tuple[Attachment, Attachment]:
    """Return the link by which a source sends, and the target's link whose address is used.

    Both are the same link if source and target share one. `family` is the address family.
    """
    if sources == targets:
        own = _first(targets, family)
        return own, own
    for source in sources:
        for target in targets:
            shared = source.link == target.link and source.link is not None
            if shared and family in source.families and family in target.families:
                return source, target
    return _way_out(sources, family), _first(targets, family)


def _first(links: Sequence[Attachment], family: Family) -> Attachment:
    return next((item for item in links if family in item.families), links[0])


def _way_out(links: Sequence[Attachment], family: Family) -> Attachment:
    """Return the link of the default route to the host; internal networks have no such route."""
    leading = [item for item in links if not item.internal] or list(links)
    return _first(leading, family)


def promised(
    plan: Plan, dialect: Dialect, topology: Topology, cells: Collection[Cell] | None = None
) -> Matrix[Promise]:
    """Return the promises for all cells of `plan`, or for the valid ones among `cells`.

    A target address that does not exist has no cell: for example, the IPv6 address of a container
    on an IPv4 network, or the gateway of a container without a network. A target that exists but
    cannot be reached has a cell.

    Raises `PlanError` if `cells` names a container that is not in the plan, or if a subnet lies
    outside the routed ranges (`topology.PRIVATE`).
    """
    modes = {container.name: container.mode for container in plan.containers}
    world = _World(dialect, topology, attachments_of(plan, dialect), modes)
    if cells is None:
        cells = list(model.cells((*modes, *OUTSIDERS), (*modes, *_TARGETS)))
    return Matrix({cell: _promise(world, cell) for cell in cells if world.has(cell)})


# --- the world ----------------------------------------------------------------


_TARGETS: Final = (SELF, LOOPBACK, GATEWAY, HOST, INTERNET, BY_NAME, NS1, NS2, BR0)


@dataclass(frozen=True, slots=True)
class _World:
    dialect: Dialect
    topology: Topology
    attachments: Attachments
    modes: Mapping[str, model.Mode]
    """Mode of each container, by name: a large matrix needs it in every cell."""

    def home_mode(self, name: str) -> model.Mode | None:
        """Return the mode of the container that owns the netns of `name`, or `None`.

        A namespace that is no container's has no mode.
        """
        mode = self.modes.get(name)
        while isinstance(mode, Joined):
            mode = self.modes[mode.container]
        return mode

    def targeted(self, cell: Cell) -> tuple[Attachment, ...]:
        """Return the attachments of the cell's target."""
        match cell.target:
            case model.SELF | model.LOOPBACK:
                return self.attachments[cell.source]
            case model.GATEWAY | model.BR0:
                return self.attachments[HOST]
            case model.BY_NAME:
                return self.attachments[INTERNET]
            case name:
                return self.attachments[name]

    def asking(self, cell: Cell) -> tuple[Attachment, ...]:
        """Return the attachments of the cell's source.

        If the target is the source's gateway, return only those of the cell's address family.
        """
        own = self.attachments[cell.source]
        if cell.target == GATEWAY:
            own = tuple(item for item in own if cell.family in item.families) or own
        return own

    def has(self, cell: Cell) -> bool:
        """Return whether the cell exists: the target has an address of the cell's family.

        Raises `PlanError` if the source or the target is unknown.
        """
        source = cell.source in self.modes or cell.source in OUTSIDERS
        target = cell.target in self.modes or cell.target in _TARGETS
        if not (source and target):
            raise PlanError(f"no such cell in this plan: {cell}")
        if cell.target == LOOPBACK:
            return True
        if cell.target == GATEWAY:
            own = (item for item in self.attachments[cell.source] if item.network is not None)
            return any(cell.family in item.families for item in own)
        return any(cell.family in item.families for item in self.targeted(cell))

    def routers_between(self, one: Attachment, other: Attachment) -> int:
        """Return the number of hops that decrement the TTL, the host among them if it forwards."""
        if _on_one_link(one, other):
            return 0
        if INTERNET not in (one.name, other.name):
            return 1
        return self.topology.routers + (0 if LAN in (one.link, other.link) else 1)


def _on_one_link(one: Attachment, other: Attachment) -> bool:
    names = {one.name, other.name}
    return one.link == other.link or (HOST in names and INTERNET not in names)


# --- the rules ---------------------------------------------------------------


def _promise(world: _World, cell: Cell) -> Promise:
    source, target = shared_link(world.asking(cell), world.targeted(cell), cell.family)
    promise = (
        _loopback(world, cell, source)
        or _no_name(world, cell, source)
        or _no_route(cell, source, target)
        or _by_tap(world, cell, source, target)
        or _kept_out(world, cell, source, target)
        or _reply(world, cell, source, target)
    )
    return _credited(world, cell, promise)


def _loopback(world: _World, cell: Cell, source: Attachment) -> Promise | None:
    """Promise that a source reaches its own 127.0.0.1 or ::1 if `lo` is up and has the address."""
    if cell.target != LOOPBACK:
        return None
    dialect = world.dialect
    if source.link is None:
        there = dialect.none_loopback if cell.family == 4 else dialect.none_loopback6
        requirement = "NONE-4" if cell.family == 4 else "NONE-6"
    else:
        there = cell.family in source.families or dialect.bridge_loopback6
        requirement = _within(source)
    if not there:
        return Promise(
            Outcome.NO_ROUTE,
            requirement=requirement,
            why="the runtime declares that lo lacks this address",
        )
    return Promise(
        Outcome.REPLY,
        ttl=START_TTL,
        seen_from=source.name,
        requirement=requirement,
        why="lo replies within its own namespace",
    )


def _no_name(world: _World, cell: Cell, source: Attachment) -> Promise | None:
    """Promise that a name does not resolve if the source reaches no resolver.

    The runtime must not forward DNS queries from an internal network, as Docker once did
    (CVE-2024-29018).
    """
    if cell.target != BY_NAME:
        return None
    if source.link is None:
        return Promise(
            Outcome.NO_NAME,
            requirement="NONE-4",
            why="a namespace with only lo reaches no resolver",
        )
    if source.internal:
        return Promise(
            Outcome.NO_NAME,
            requirement="INT-2",
            why="the runtime forwards no DNS query of an internal network",
        )
    if not world.dialect.none_resolver and isinstance(world.home_mode(cell.source), Attached):
        return Promise(
            Outcome.NO_NAME,
            requirement="ATT-3",
            why="the runtime declares no resolver for mode none",
        )
    on_network = source.network is not None and source.network.name != DEFAULT_NETWORK
    if on_network and world.dialect.network_resolver == "unreachable":
        return Promise(
            Outcome.NO_NAME,
            requirement="BR-8",
            why="the runtime declares the resolver of a network unreachable",
        )
    return None


def _no_route(cell: Cell, source: Attachment, target: Attachment) -> Promise | None:
    """Promise an immediate error from the source's own kernel if it has no route.

    An internal network has no default route, but the address of its bridge replies:
    https://docs.docker.com/reference/cli/docker/network/create/.
    """
    if source == target:
        return None
    if source.link is None:
        requirement, why = "NONE-4", "its namespace has no route"
    elif cell.family not in source.families:
        requirement, why = "V6-3", "its network has no IPv6"
    elif source.internal and source.link != target.link and cell.target != GATEWAY:
        requirement, why = "INT-1", "an internal network has no default route"
    else:
        return None
    return Promise(Outcome.NO_ROUTE, requirement=requirement, why=why)


def _by_tap(world: _World, cell: Cell, source: Attachment, target: Attachment) -> Promise | None:
    """Promise the outcome if a user-space process is between source and target.

    The process (pasta or slirp4netns) is behind the source, the target, or each of them. The
    process sends each request of its tap again from a socket of the host. Targets therefore see the
    host's address. No route leads to a tap.

    pasta gives its tap the host's address, so a packet for this address ends at its nearest owner.
    A packet for the address of slirp4netns' tap also ends there, or at the route of private ranges.
    Over IPv6 slirp4netns advertises a prefix, from which each container derives its own address.

    https://passt.top/passt/about/, https://github.com/rootless-containers/slirp4netns
    """
    dialect = world.dialect
    tap, other = _tap(dialect, source), _tap(dialect, target)
    apart = not (source.network and target.network) and cell.target != GATEWAY
    if source == target or not (tap or other) or not apart:
        return None
    if cell.family == 6 and source.network and dialect.beyond6 == "unreachable":
        return _nowhere()
    alike = tap and target.tap == tap and (tap == "pasta" or cell.family == 4)
    if alike or (tap == "pasta" and target.name == HOST and cell.target != BR0):
        return _mistaken(source, source.name, 0, "UM-4" if target.tap else "UM-3")
    if target.tap == "pasta":
        to_host = world.routers_between(source, world.attachments[HOST][0])
        return _mistaken(source, HOST, to_host, "UM-4")
    if other:
        return Promise(Outcome.DROPPED, requirement="UM-4", why="no route leads to a tap")
    routers = world.topology.routers if target.name == INTERNET else 0
    if cell.protocol is Protocol.UDP:
        # Datagrams keep their TTL for traceroute; libslirp decrements it as a router does.
        routers += bool(source.network) + (tap == "slirp4netns")
    return Promise(
        Outcome.REPLY,
        seen_ttl=START_TTL - routers,
        seen_from=HOST,
        requirement="UM-3" if target.name == HOST else "UM-2",
        why=f"{tap} sends the request again from the host",
    )


def _nowhere() -> Promise:
    """Promise a reject with a rate-limited ICMPv6 error.

    It comes from the netns that contains the bridges, which has no IPv6 route to the outside.
    """
    return Promise(
        Outcome.REJECTED,
        codes=frozenset({"net-unreachable"}),
        limited=True,
        requirement="UM-6",
        why="the runtime declares no IPv6 route beyond the bridges",
    )


def _tap(dialect: Dialect, end: Attachment) -> str:
    """Return the user-space process behind an attachment, or an empty string if there is none.

    It is behind the container's own tap, or behind that of the netns that contains the bridges.
    """
    if end.network and dialect.bridges != "host":
        return dialect.bridges
    return end.tap


def _mistaken(source: Attachment, answers: str, routers: int, requirement: str) -> Promise:
    """Promise a reply from a namespace that also has the target's address, nearer to the source."""
    return Promise(
        Outcome.WRONG_PEER,
        ttl=START_TTL - routers,
        seen_from=source.name,
        requirement=requirement,
        why=f"{answers} has that address too",
    )


def _kept_out(world: _World, cell: Cell, source: Attachment, target: Attachment) -> Promise | None:
    """Promise a drop or reject of packets that the runtime's rules do not let into a container.

    The packets come from other networks, from outside the host, or from peers on a network without
    inter-container communication. The rules accept packets from the host. They also accept packets
    to targets other than containers, unless the dialect declares a drop.
    """
    if source == target or source.name == HOST:
        return None
    if target.network is None:
        return _cut_off(world.dialect, cell, source, target)
    if source.link == target.link:
        if target.network.icc:
            return None
        requirement, why = "ICC-1", "inter-container communication is off on this network"
    elif target.network.internal:
        requirement, why = "INT-1", "the host forwards no packet into an internal network"
    elif source.network is None:
        return _direct_routing(world.dialect, cell.family)
    elif world.dialect.isolation == "none":
        return None
    else:
        requirement, why = "NET-2", "they are on different networks"
    return Promise(Outcome.DROPPED, requirement=requirement, why=why)


def _cut_off(
    dialect: Dialect, cell: Cell, source: Attachment, target: Attachment
) -> Promise | None:
    """Promise a drop of IPv6 packets forwarded to or from br0, if the dialect declares it."""
    forwarded = source.network is None and target.name != HOST
    if cell.family == 4 or dialect.router6 == "kept" or not forwarded:
        return None
    if BR0 not in (source.link, target.link):
        return None
    return Promise(
        Outcome.DROPPED,
        requirement="BYS-2",
        why="the runtime declares that the host stops forwarding IPv6",
    )


def _direct_routing(dialect: Dialect, family: Family) -> Promise | None:
    """Promise the declared outcome for a packet from outside that is addressed to a container.

    The packet goes to the container's own address and to an unpublished port.
    """
    match dialect.direct(family):
        case "accept":
            return None
        case "reject":
            outcome, verb = Outcome.REJECTED, "rejected"
        case "drop":
            outcome, verb = Outcome.DROPPED, "dropped"
    return Promise(
        outcome, requirement="BR-9", why=f"direct routing to unpublished containers is {verb}"
    )


def _reply(world: _World, cell: Cell, source: Attachment, target: Attachment) -> Promise:
    """Promise a reply, with the TTL after all routers and the sender that the target sees."""
    routers = world.routers_between(source, target)
    sender = _sender(world, cell, source, target)
    requirement = _relation(cell, source, target)
    if source == target:
        why = "the packet stays in its namespace"
    elif routers == 0:
        why = "no router between"
    else:
        why = "one router between" if routers == 1 else f"{routers} routers between"
        if sender != source.name:
            why += ", masqueraded"
    return Promise(
        Outcome.REPLY, ttl=START_TTL - routers, seen_from=sender, requirement=requirement, why=why
    )


def _sender(world: _World, cell: Cell, source: Attachment, target: Attachment) -> str:
    """Return the name of the sender that the target sees: the host if the packet is masqueraded.

    Packets that leave a bridge for the internet are always masqueraded. For packets to other
    networks behind the host, and for packets from containers attached by hand, the dialect decides.
    """
    dialect = world.dialect
    leaves = source.network is not None and not _on_one_link(source, target)
    masqueraded = leaves and (target.name == INTERNET or dialect.masquerade_to_bystanders)
    if masqueraded and not dialect.attached_masquerade:
        masqueraded = not isinstance(world.home_mode(cell.source), Attached)
    return HOST if masqueraded else source.name


def _relation(cell: Cell, source: Attachment, target: Attachment) -> str:
    """Return the id of the requirement for traffic between this source and this target."""
    if source == target:
        return _within(source)
    if source.network is None:
        inward = "BR-27" if source.name == HOST else "BR-9"
        return inward if target.network else "BYS-2"
    if source.internal:
        return "INT-1"
    if target.network:
        return "BR-4" if source.link == target.link else "NET-2"
    known = {GATEWAY: "BR-5", HOST: "BR-5", INTERNET: "BR-7", BY_NAME: "BR-8"}
    return known.get(cell.target, "BR-6")


def _within(own: Attachment) -> str:
    """Return the id of the requirement for a source that sends to itself."""
    if own.tap:
        return "UM-1"
    return "BR-1" if own.network else "BYS-1"


def _credited(world: _World, cell: Cell, promise: Promise) -> Promise:
    """Return the promise with the requirement that applies to it.

    A container that is attached by hand decides, then the mode of the source, then that of the
    target, then IPv6.
    """
    requirement, why = promise.requirement, promise.why
    bridged = requirement.startswith("BR-")
    match world.modes.get(cell.source), world.modes.get(cell.target):
        case (Attached(), _) | (_, Attached()) if bridged and requirement != "BR-9":
            requirement = "ATT-3"
        case Joined(container=home), _:
            requirement, why = "CTR-1", f"it shares {home}'s namespace: {why}"
        case Host(), _:
            requirement, why = "HOST-4", f"it is the host: {why}"
        case _, Joined(container=home) if promise.outcome is Outcome.REPLY:
            requirement, why = "CTR-2", f"{cell.target} has {home}'s addresses: {why}"
        case _, Host() if promise.outcome is Outcome.REPLY:
            requirement, why = "HOST-3", f"{cell.target} is the host: {why}"
        case _ if bridged and cell.family == 6:
            requirement = "V6-1"
    return replace(promise, requirement=requirement, why=why)


class Promises:
    """Cache of the promises of one scene: the oracle returns equal results for equal arguments."""

    def __init__(self) -> None:
        self._last: tuple[object, Matrix[Promise]] | None = None

    def of(
        self,
        plan: Plan,
        dialect: Dialect,
        topology: Topology,
        cells: Collection[Cell] | None = None,
    ) -> Matrix[Promise]:
        """Return the promises as `oracle.promised` does."""
        asked = None if cells is None else tuple(cells)
        given = plan, dialect, topology, asked
        if self._last is None or self._last[0] != given:
            self._last = given, promised(plan, dialect, topology, asked)
        return self._last[1]
