"""A container that publishes a port, and whoever calls it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from typing import Final, NamedTuple, Self

from harness.adapters.protocol import Adapter
from harness.addresses import LOOPBACKS
from harness.container import Container
from harness.model import (
    ATTACKER,
    FAMILIES,
    GATEWAY,
    HOST,
    INTERNET,
    NS1,
    NS2,
    Bridge,
    Family,
    Publish,
)
from harness.scene import Scene
from harness.topology import Address, pick
from harness.traffic import TRANSPORTS, Ear, Meeting, Transport
from linux import rtnl
from linux.carrier import await_local
from linux.netlink import Netlink

INSIDE: Final = 41080
"""Where a container listens."""
PORTS: Final[dict[Transport, int]] = {"tcp": 8080, "udp": 8053}
"""The ports of the host at which the shared shop is, on every address."""
OWN: Final = 8180
"""The first port of the host that a test may publish by itself."""
MARKET: Final = "market"
"""The network with IPv6 on which the shared containers are where the family is IPv6."""


class Call(NamedTuple):
    """Who calls which address; the published port, unless another is given."""

    caller: str
    address: Address
    port: int = 0


@dataclass(frozen=True, slots=True)
class Shop:
    """A container that listens on `INSIDE` over one transport, called by `port` of the host."""

    scene: Scene
    container: Container
    transport: Transport
    family: Family
    port: int
    ears: Mapping[Family, Ear] = field(default_factory=dict)
    """Listeners that stay open; elsewhere one is opened for each call."""

    @property
    def network(self) -> str:
        """The network that it is on."""
        return self.scene.plan.container(self.container.name).networks[0]

    def own(self) -> Address:
        """The container's own address."""
        address = self.container.net.address(self.family)
        assert address is not None
        return address

    def gateway(self) -> Address:
        """The host's address on its network."""
        facts = self.scene.runtime.network_facts(self.network)
        return next(item.ip for item in facts.gateways if item.version == self.family)

    @contextmanager
    def open(self) -> Iterator[Self]:
        """Keep listening inside while the body calls."""
        with self.ear() as ear:
            yield replace(self, ears={self.family: ear})

    def ear(self, family: Family | None = None) -> Ear:
        """A listener inside, in its family or in the other."""
        family = family or self.family
        return Ear(self.container.net, self.transport, family=family, port=INSIDE)

    @contextmanager
    def _listening(self, family: Family) -> Iterator[Ear]:
        if family in self.ears:
            yield self.ears[family]
        else:
            with self.ear(family) as ear:
                yield ear

    def serves(self, caller: str, address: Address, *, port: int = 0) -> Meeting | None:
        """Somebody calls the published port on an address of the host, and is answered.

        Or another port. `None` when the call is refused.
        """
        with self._listening(self.family) as ear:
            place = self.scene.place(caller)
            return ear.hears(place, at=address, port=port or self.port, answered=True)

    def overhears(self, calls: Iterable[Call]) -> list[str]:
        """Those of many calls, made all at once, that are heard: refused or swallowed are not."""
        made = [(self.scene.place(who), at, port or self.port) for who, at, port in calls]
        found = []
        for family in FAMILIES:
            if own := [item for item in made if item[1].version == family]:
                with self._listening(family) as ear:
                    found += ear.overhears(own, self.scene.settle)
        return found


def shops(container: Container, scene: Scene, family: Family, port: int = OWN) -> list[Shop]:
    """A container that publishes one port over TCP and UDP, by each of them."""
    return [Shop(scene, container, transport, family, port) for transport in TRANSPORTS]


def both(port: int, inside: int = INSIDE, *, at: Address | None = None) -> tuple[Publish, ...]:
    """A port published over TCP and UDP alike."""
    return tuple(Publish(port, inside, transport, at) for transport in TRANSPORTS)


def home(runtime: Adapter, family: Family) -> Bridge:
    """Where the market's containers of a family are: a tap has both."""
    return Bridge() if family == 4 or has_taps(runtime) else Bridge(MARKET)


def has_taps(runtime: Adapter) -> bool:
    """Whether a container has by default a tap of its own, in place of a network."""
    return runtime.dialect.default_network != "bridge"


def link_of(scene: Scene, name: str) -> str:
    """By which of its interfaces a container is called: behind a tap `lo` may be one of them."""
    own = scene.plan.container(name).mode == Bridge() and has_taps(scene.runtime)
    return "" if own else "eth0"


def dual(scene: Scene) -> Bridge:
    """Where a container gets addresses of both families."""
    if has_taps(scene.runtime):
        return Bridge()
    scene.network("dual", ipv6=True)
    return Bridge("dual")


def meets(scene: Scene, caller: str, address: Address) -> bool:
    """Whether a call of the host's address gets to the host: who has the same calls itself."""
    if caller == HOST:
        return True
    inside = {item.name for item in scene.plan.containers}
    bridges = scene.place(GATEWAY) if caller in inside and is_behind_bridges(scene) else None
    own = [*scene.place(caller).interfaces(), *(bridges.interfaces() if bridges else ())]
    return address not in {item.ip for item in own}


def is_behind_bridges(scene: Scene) -> bool:
    """Whether the runtime's bridges are in a namespace of their own, and there are some."""
    return scene.place(GATEWAY).identity != scene.place(HOST).identity


def addresses(scene: Scene, family: Family) -> list[Address]:
    """Every address of the host's that others can call, the bridges' among them."""
    found = (item.ip for item in scene.place(HOST).interfaces())
    return [item for item in found if item.version == family and not item.is_loopback]


@contextmanager
def one_more(scene: Scene, family: Family) -> Iterator[Address]:
    """Give the host one address more on the LAN while the body runs."""
    own = pick(scene.world.topology.host, family)
    more = ip_interface(f"{own.ip + 70}/{own.network.prefixlen}")
    host = scene.place(HOST)
    index = host.links()["eth0"].ifindex
    with host.open() as space, Netlink(space) as netlink:
        netlink.send([rtnl.add_address(index, more)])
        try:
            await_local(netlink, [more.ip])
            yield more.ip
        finally:
            netlink.send([rtnl.del_address(index, more)])


def callers(
    scene: Scene, family: Family, outside: Collection[str]
) -> Iterator[tuple[str, Address]]:
    """Who calls which address of the host: those outside and itself every one, and its loopback."""
    for address in addresses(scene, family):
        for caller in (*outside, HOST):
            yield caller, address
    yield HOST, LOOPBACKS[family]


ELSEWHERE: Final[dict[str, tuple[str, ...]]] = {
    "shop": ("peer", NS1, ATTACKER, INTERNET),
    "peer": (NS1, ATTACKER, INTERNET),
    "stranger": (NS1, ATTACKER, INTERNET),
    HOST: ("peer", "stranger", NS1, ATTACKER, INTERNET),
    NS1: (NS2, ATTACKER, INTERNET),
    ATTACKER: (NS1, INTERNET),
    INTERNET: (NS1,),
}
"""Who calls whom of those that are not the host: from it, through it, and past it."""


def assert_theirs(scene: Scene, transport: Transport, family: Family, port: int) -> None:
    """A port that the host has published is, on every other machine, that machine's own."""
    inside = {item.name for item in scene.plan.containers}
    unmet = inside if has_taps(scene.runtime) else set()  # nobody reaches them, whatever the port
    present = inside | scene.places.keys()
    for caller, others in ELSEWHERE.items():
        for other in others:
            if not {caller, other} <= present or other in unmet:
                continue
            address = scene.place(other).address(family)
            with Ear(
                scene.place(other), transport, family=family, address=address, port=port
            ) as ear:
                met = ear.hears(scene.place(caller), answered=True)
            assert met, f"{caller} calls port {port} of {other}"
