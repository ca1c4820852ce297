"""Which address a cell's target goes by, and whose an address is, in a scene at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from harness.adapters.protocol import Adapter
from harness.model.attachments import meeting, whereabouts
from harness.model.plan import (
    BR0,
    BY_NAME,
    GATEWAY,
    HOST,
    INTERNET,
    LOOPBACK,
    OUTSIDERS,
    SELF,
    Cell,
    Family,
    Host,
    Joined,
    Observation,
    Outcome,
    Plan,
)
from harness.model.topology import Address
from harness.probe.resolver import Lookup, Resolved, resolve
from harness.probe.results import Namer, ProbeRequest
from harness.testbench.netns_view import NetnsView, first_address
from harness.world.build import World
from linux.netns import NetNS

LOOPBACKS: dict[Family, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


class AddressBook:
    """Looks each address up once. `place` finds a container's place, or the world's own."""

    def __init__(
        self, plan: Plan, runtime: Adapter, world: World, place: Callable[[str], NetnsView]
    ) -> None:
        self._plan, self._world = plan, world
        self._containers = {item.name for item in plan.containers}
        self._whereabouts = whereabouts(plan, runtime.dialect)
        self._known: dict[tuple[str, str, Family], Address | None] = {}
        self._interfaces = cache(lambda name: place(name).interfaces())
        self._gateways = cache(lambda network: runtime.network_facts(network).gateways)

    def of(self, cell: Cell) -> Address | None:
        """The address that a cell's target goes by, `None` where it has none in that family.

        Not for targets by name.
        """
        if cell.target == LOOPBACK:
            return LOOPBACKS[cell.family]
        if cell.target == GATEWAY:
            return self._gateway(cell.source, cell.family)
        name = cell.source if cell.target == SELF else cell.target
        key = (name, self._network(cell.source, name, cell.family), cell.family)
        if key not in self._known:
            self._known[key] = self._look_up(*key)
        return self._known[key]

    def _network(self, source: str, target: str, family: Family) -> str:
        """On which network a source looks for a target that is on several; `""` for others."""
        if target not in self._containers or not self._plan.home(target).also:
            return ""
        _, place = meeting(self._whereabouts[source], self._whereabouts[target], family)
        return place.network.name if place.network else ""

    def _look_up(self, name: str, network: str, family: Family) -> Address | None:
        if name not in self._containers:
            return self._world.address(name, family)
        if isinstance(self._plan.home(name).mode, Host):
            return self._world.address(HOST, family)
        if not network:
            return first_address(self._interfaces(name), family)
        subnets = {gateway.network for gateway in self._gateways(network)}
        own = (item for item in self._interfaces(name) if item.version == family)
        return next((item.ip for item in own if item.network in subnets), None)

    def _gateway(self, name: str, family: Family) -> Address | None:
        for network in self._plan.home(name).networks:
            for gateway in self._gateways(network):
                if gateway.version == family:
                    return gateway.ip
        return None

    def namer(self, spaces: Mapping[str, NetNS]) -> Namer:
        """Whose an address is: a joiner's is its home's, a host-mode container's the host's."""
        owners = self._world.topology.owners()
        for place in (HOST, GATEWAY):
            for interface in self._interfaces(place):
                owners.setdefault(interface.ip, HOST)
        homes = {spaces[name].id: name for name in OUTSIDERS}
        own: dict[tuple[int, int], set[Address]] = {}
        for container in self._plan.containers:
            homes.setdefault(spaces[container.name].id, container.name)
            if isinstance(container.mode, Host | Joined):
                continue
            held = own[spaces[container.name].id] = set()
            for interface in self._interfaces(container.name):
                held.add(interface.ip)
                owners.setdefault(interface.ip, container.name)  # pasta's are the host's

        def name(address: Address, witness: NetNS) -> str:
            if address.is_loopback or address in own.get(witness.id, ()):
                return homes[witness.id]
            return owners.get(address, str(address))

        return name


def questions(
    cells: Sequence[Cell],
    spaces: Mapping[str, NetNS],
    addresses: AddressBook,
    resolv_conf: Callable[[str], str],
) -> tuple[dict[Cell, Observation], list[ProbeRequest]]:
    """The cells that end before a packet, and the questions to ask for the others.

    `spaces` are where everybody asks and witnesses, by name; `resolv_conf` tells what
    somebody's says. Names are asked for with real queries.
    """
    ended: dict[Cell, Observation] = {}
    found: list[ProbeRequest] = []
    named = _look_up([cell for cell in cells if cell.target == BY_NAME], spaces, resolv_conf)
    for cell in cells:
        if cell.target == BY_NAME:
            resolved = named[cell.source, cell.family]
            address, outcome, reason = resolved.address, Outcome.NO_NAME, resolved.reason
        else:
            address = addresses.of(cell)
            outcome, reason = Outcome.NO_ROUTE, f"{cell.target} has no IPv{cell.family} address"
        if address is None:
            ended[cell] = Observation(outcome, detail=reason)
        else:
            found.append(ProbeRequest(cell, spaces[cell.source], address, spaces[witness(cell)]))
    return ended, found


def _look_up(
    cells: Sequence[Cell], spaces: Mapping[str, NetNS], resolv_conf: Callable[[str], str]
) -> dict[tuple[str, Family], Resolved]:
    keys = list(dict.fromkeys((cell.source, cell.family) for cell in cells))
    told = {source: resolv_conf(source) for source, _ in keys}
    lookups = [Lookup(spaces[source], told[source], BY_NAME, family) for source, family in keys]
    control = Lookup(spaces[INTERNET], resolv_conf(INTERNET), BY_NAME, 4)
    return dict(zip(keys, resolve(lookups, control=control), strict=True))


def witness(cell: Cell) -> str:
    """The name of the place that must answer."""
    special = {SELF: cell.source, LOOPBACK: cell.source, BR0: HOST, BY_NAME: INTERNET}
    return special.get(cell.target, cell.target)
