"""Plan, topology and dialect → the promised matrix: the specification as code.

Every cell is settled by the first rule that speaks:

1. `_loopback`   the target is the source's own loopback address;
2. `_no_name`    the name does not resolve, because no resolver can be reached;
3. `_no_route`   the source has no route to the target, and knows at once;
4. `_kept_out`   the packet leaves and the host's rules keep it from arriving;
5. `_reply`      it arrives, and is answered.

`_credited` then says which requirement answers for the cell. What the rules take
as given is `harness.topology`: the world forwards, the routers and the attacker
route private ranges towards the host, and every address of the host answers
whoever can reach the host (Linux's weak host model).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from harness import model
from harness.dialect import Dialect
from harness.matrix import Matrix
from harness.model import (
    ATTACKER,
    BR0,
    BY_NAME,
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
    Family,
    Host,
    Joined,
    NetworkSpec,
    Outcome,
    Plan,
    PlanError,
    Promise,
)
from harness.topology import PRIVATE, START_TTL, Topology


def promised(
    plan: Plan, dialect: Dialect, topology: Topology, cells: Collection[Cell] | None = None
) -> Matrix[Promise]:
    """What must happen in every cell of `plan`, or in those of `cells` that are cells at all.

    A question about an address that nobody has (the IPv6 address of a container
    on an IPv4 network, the gateway of a container without a network) is no cell.
    A target that exists and cannot be reached is one.

    Raises `PlanError` when `cells` asks about a name that is not in the plan, or
    when a subnet lies outside what the world routes (`topology.PRIVATE`).
    """
    world = _World(plan, dialect, topology, _places(plan, dialect))
    asked = model.cells(world.sources, world.targets) if cells is None else cells
    return Matrix({cell: _promise(world, cell) for cell in asked if world.has(cell)})


# --- who is where ------------------------------------------------------------

_LAN = "the LAN"


@dataclass(frozen=True, slots=True)
class _Place:
    """One network namespace of the world.

    `name` is whom its addresses belong to. `link` is the link it hangs on, `None`
    for a container without one; the host hangs on every link but the internet's.
    `network` is the runtime's network, for containers that are on one.
    """

    name: str
    link: str | None
    families: tuple[Family, ...] = FAMILIES
    network: NetworkSpec | None = None

    @property
    def internal(self) -> bool:
        """Whether it is a container on a network without a way out."""
        return self.network is not None and self.network.internal


_HOST = _Place(HOST, _LAN)
_OUTSIDE = (
    _HOST,
    _Place(NS1, BR0),
    _Place(NS2, BR0),
    _Place(INTERNET, INTERNET),
    _Place(ATTACKER, _LAN),
)


def _places(plan: Plan, dialect: Dialect) -> dict[str, _Place]:
    """Where everybody lives, by name: a joiner at its home's place."""
    places = {place.name: place for place in _OUTSIDE}
    for container in plan.containers:
        home = plan.home(container.name)
        match home.mode:
            case Bridge(network=name) | Attached(network=name):
                network = plan.network(name)
                families = network.families
                if name == model.DEFAULT_NETWORK and dialect.bridge_address6:
                    families = FAMILIES
                _check_routed(network)
                place = _Place(home.name, f"network {name}", families, network)
            case Host():
                place = _HOST
            case _:
                place = _Place(home.name, link=None, families=())
        places[container.name] = place
    return places


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


@dataclass(frozen=True, slots=True)
class _World:
    plan: Plan
    dialect: Dialect
    topology: Topology
    places: Mapping[str, _Place]

    @property
    def sources(self) -> tuple[str, ...]:
        return (*(container.name for container in self.plan.containers), *OUTSIDERS)

    @property
    def targets(self) -> tuple[str, ...]:
        containers = (container.name for container in self.plan.containers)
        return (SELF, LOOPBACK, *containers, GATEWAY, HOST, INTERNET, BY_NAME, NS1, NS2, BR0)

    def mode(self, name: str) -> model.Mode | None:
        """The mode of the container called `name`; `None` for anything else."""
        modes = {container.name: container.mode for container in self.plan.containers}
        return modes.get(name)

    def target(self, cell: Cell) -> _Place:
        """The place that must answer."""
        match cell.target:
            case model.SELF | model.LOOPBACK:
                return self.places[cell.source]
            case model.GATEWAY | model.BR0:
                return self.places[HOST]
            case model.BY_NAME:
                return self.places[INTERNET]
            case name:
                return self.places[name]

    def has(self, cell: Cell) -> bool:
        """Whether somebody owns the address that the cell asks about."""
        if cell.source not in self.sources or cell.target not in self.targets:
            raise PlanError(f"no such cell in this plan: {cell}")
        source = self.places[cell.source]
        if cell.target == LOOPBACK:
            return True
        if cell.target == GATEWAY:
            return source.network is not None and cell.family in source.families
        return cell.family in self.target(cell).families

    def routers_between(self, one: _Place, other: _Place) -> int:
        """How many routers decrement the TTL on the way, the host among them."""
        if _on_one_link(one, other):
            return 0
        if INTERNET not in (one.name, other.name):
            return 1
        return self.topology.routers + (0 if _LAN in (one.link, other.link) else 1)


def _on_one_link(one: _Place, other: _Place) -> bool:
    names = {one.name, other.name}
    return one.link == other.link or (HOST in names and INTERNET not in names)


# --- the rules ---------------------------------------------------------------


def _promise(world: _World, cell: Cell) -> Promise:
    source, target = world.places[cell.source], world.target(cell)
    promise = (
        _loopback(world, cell, source)
        or _no_name(cell, source)
        or _no_route(cell, source, target)
        or _kept_out(world, source, target)
        or _reply(world, cell, source, target)
    )
    return _credited(world, cell, promise)


def _loopback(world: _World, cell: Cell, source: _Place) -> Promise | None:
    """127.0.0.1 and ::1 answer wherever `lo` is up and has them."""
    if cell.target != LOOPBACK:
        return None
    dialect = world.dialect
    if source.link is None:
        there = dialect.none_loopback if cell.family == 4 else dialect.none_loopback6
        requirement = "NONE-4" if cell.family == 4 else "NONE-6"
    else:
        there = cell.family in source.families or dialect.bridge_loopback6
        requirement = "BYS-1" if source.network is None else "BR-1"
    if not there:
        return Promise(
            Outcome.NO_ROUTE, requirement=requirement, why="lo is declared not to have it"
        )
    return Promise(
        Outcome.REPLY,
        ttl=START_TTL,
        seen_from=source.name,
        requirement=requirement,
        why="every namespace answers itself on lo",
    )


def _no_name(cell: Cell, source: _Place) -> Promise | None:
    """Without a way out there is no resolver, and none is asked behind its back.

    Docker once did ask on behalf of internal networks (CVE-2024-29018).
    """
    if cell.target != BY_NAME:
        return None
    if source.link is None:
        return Promise(
            Outcome.NO_NAME, requirement="NONE-4", why="no resolver is reachable over lo alone"
        )
    if source.internal:
        return Promise(
            Outcome.NO_NAME,
            requirement="INT-2",
            why="no resolver outside is asked for an internal network",
        )
    return None


def _no_route(cell: Cell, source: _Place, target: _Place) -> Promise | None:
    """A route that is missing is told at once by the source's own kernel.

    An internal network has no default route and its bridge's address answers:
    https://docs.docker.com/reference/cli/docker/network/create/.
    """
    if source == target:
        return None
    if source.link is None:
        requirement, why = "NONE-4", "there is no route at all"
    elif cell.family not in source.families:
        requirement, why = "V6-3", "its network has no IPv6"
    elif source.internal and source.link != target.link and cell.target != GATEWAY:
        requirement, why = "INT-1", "an internal network has no default route"
    else:
        return None
    return Promise(Outcome.NO_ROUTE, requirement=requirement, why=why)


def _kept_out(world: _World, source: _Place, target: _Place) -> Promise | None:
    """What the host's rules keep from a container: other networks, outsiders, deaf peers.

    Nothing is kept from the host, nor from anybody but containers.
    """
    if target.network is None or source == target or source.name == HOST:
        return None
    if source.link == target.link:
        if target.network.icc:
            return None
        requirement, why = "ICC-1", "inter-container communication is off on this network"
    elif target.network.internal:
        requirement, why = "INT-1", "nothing is forwarded into an internal network"
    elif source.network is None:
        return _direct_routing(world.dialect)
    elif world.dialect.isolation == "none":
        return None
    else:
        requirement, why = "NET-2", "they are on different networks"
    return Promise(Outcome.DROPPED, requirement=requirement, why=why)


def _direct_routing(dialect: Dialect) -> Promise | None:
    """An outsider's packet to an unpublished container's own address meets what is declared."""
    match dialect.direct_routing:
        case "accept":
            return None
        case "reject":
            outcome, verb = Outcome.REJECTED, "rejected"
        case "drop":
            outcome, verb = Outcome.DROPPED, "dropped"
    return Promise(
        outcome, requirement="BR-9", why=f"direct routing to unpublished containers is {verb}"
    )


def _reply(world: _World, cell: Cell, source: _Place, target: _Place) -> Promise:
    """An answer, with the TTL that the routers leave, to whoever the target saw asking."""
    routers = world.routers_between(source, target)
    sender = _sender(world.dialect, source, target)
    requirement = _relation(cell, source, target)
    if source == target:
        why = "delivered without leaving its namespace"
    elif routers == 0:
        why = "no router between"
    else:
        why = "one router between" if routers == 1 else f"{routers} routers between"
        if sender != source.name:
            why += ", behind the host's address"
    return Promise(
        Outcome.REPLY,
        ttl=START_TTL - routers,
        seen_from=sender,
        requirement=requirement,
        why=why,
    )


def _sender(dialect: Dialect, source: _Place, target: _Place) -> str:
    """Whose address the target sees: what leaves a container's bridge is masqueraded.

    To the internet always; to what else hangs on the host, as declared.
    """
    leaves = source.network is not None and not _on_one_link(source, target)
    masqueraded = leaves and (target.name == INTERNET or dialect.masquerade_to_bystanders)
    return HOST if masqueraded else source.name


def _relation(cell: Cell, source: _Place, target: _Place) -> str:
    """The requirement that speaks about these two reaching each other."""
    if source == target:
        return "BR-1" if source.network else "BYS-1"
    if source.network is None:
        inward = "BR-27" if source.name == HOST else "BR-9"
        return inward if target.network else "BYS-2"
    if source.internal:
        return "INT-1"
    if target.network:
        return "BR-4" if source.link == target.link else "NET-2"
    known = {GATEWAY: "BR-5", HOST: "BR-5", INTERNET: "BR-7", BY_NAME: "BR-8"}
    return known.get(cell.target, "BR-6")


def _credited(world: _World, cell: Cell, promise: Promise) -> Promise:
    """Whose promise it is: the source's mode speaks first, then the target's, then IPv6."""
    requirement, why = promise.requirement, promise.why
    bridged = requirement.startswith("BR-")
    match world.mode(cell.source), world.mode(cell.target):
        case Joined(container=home), _:
            requirement, why = "CTR-1", f"it shares {home}'s namespace: {why}"
        case Host(), _:
            requirement, why = "HOST-4", f"it is the host: {why}"
        case Attached(), _ if bridged:
            requirement = "ATT-3"
        case _, Joined(container=home) if promise.outcome is Outcome.REPLY:
            requirement, why = "CTR-2", f"{cell.target} has {home}'s addresses: {why}"
        case _, Host() if promise.outcome is Outcome.REPLY:
            requirement, why = "HOST-3", f"{cell.target} is the host: {why}"
        case _ if bridged and cell.family == 6:
            requirement = "V6-1"
    return replace(promise, requirement=requirement, why=why)
