"""A container that publishes a port, and whoever calls it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from typing import Final, NamedTuple, Self

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import (
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
from harness.model.topology import Address, pick
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.container import Container
from harness.testbench.listener import TRANSPORTS, Exchange, Listener, Transport
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux import rtnetlink
from linux.netlink import Netlink
from linux.readiness import await_local

INSIDE: Final = 31080
"""Where a container listens: the kernel gives such a port to nobody who asks for none."""
CHOSEN: Final = INSIDE + 100
"""Where it listens behind a port of the runtime's choice."""
PORTS: Final[dict[Transport, int]] = {"tcp": 8080, "udp": 8053}
"""The ports of the host at which the shared shop is, on every address."""
OWN: Final = 8180
"""The first port of the host that a test may publish by itself."""
MARKET: Final = "market"
"""The network with IPv6 on which the shared containers are where the family is IPv6."""


class PortCall(NamedTuple):
    """Who calls which address; the published port, unless another is given."""

    caller: str
    address: Address
    port: int = 0


@dataclass(frozen=True, slots=True)
class PublishedContainer:
    """A container that listens on `INSIDE` over one transport, called by `port` of the host."""

    scene: Scene
    container: Container
    transport: Transport
    family: Family
    port: int
    ears: Mapping[Family, Listener] = field(default_factory=dict)
    """Listeners that stay open; elsewhere one is opened for each call."""

    @property
    def network(self) -> str:
        """The network that it is on."""
        return self.scene.plan.container(self.container.name).networks[0]

    @property
    def heard_in(self) -> Family:
        """The family in which the container hears who calls it in `family`."""
        return heard_in(self.scene.runtime, self.family)

    def own(self) -> Address:
        """The container's own address, at which it is called."""
        address = self.container.net.address(self.heard_in)
        assert address is not None
        return address

    def gateway(self) -> Address:
        """The host's address on its network."""
        facts = self.scene.runtime.network_facts(self.network)
        return next(item.ip for item in facts.gateways if item.version == self.heard_in)

    @contextmanager
    def open(self) -> Iterator[Self]:
        """Keep listening inside while the body calls."""
        with self.ear() as ear:
            yield replace(self, ears={self.heard_in: ear})

    def ear(self, family: Family | None = None) -> Listener:
        """A listener inside, where the port leads or in the family given."""
        family = family or self.heard_in
        return Listener(self.container.net, self.transport, family=family, port=INSIDE)

    @contextmanager
    def _listening(self, family: Family) -> Iterator[Listener]:
        if family in self.ears:
            yield self.ears[family]
        else:
            with self.ear(family) as ear:
                yield ear

    def serves(self, caller: str, address: Address, *, port: int = 0) -> Exchange | None:
        """Somebody calls the published port on an address of the host, and is answered.

        Or another port. `None` when the call is refused.
        """
        with self._listening(self.heard_in) as ear:
            place = self.scene.place(caller)
            return ear.hears(place, at=address, port=port or self.port, answered=True)

    def reaches(self, caller: str, address: Address) -> bool:
        """Whether somebody who calls the published port there is answered, or refused or swallowed.

        For where a process in user space may take the call: it may be late where all else is quiet.
        """
        with suppress(TimeoutError):
            return self.serves(caller, address) is not None
        return False

    def overhears(self, calls: Iterable[PortCall]) -> list[str]:
        """Those of many calls, made all at once, that are heard: refused or swallowed are not.

        In the family in which they are made, and in that to which a published port leads.
        """
        made = [(self.scene.place(who), at, port or self.port) for who, at, port in calls]
        found: dict[str, None] = {}
        for family in FAMILIES:
            if own := [item for item in made if item[1].version == family]:
                for listening in {family, heard_in(self.scene.runtime, family)}:
                    with self._listening(listening) as ear:
                        found |= dict.fromkeys(ear.overhears(own, self.scene.settle))
        return list(found)


def heard_in(runtime: Adapter, family: Family) -> Family:
    """The family in which a container hears who calls its published port in a family."""
    return 4 if runtime.dialect.published6 == "ipv4" else family


def shops(
    container: Container, scene: Scene, family: Family, port: int = OWN
) -> list[PublishedContainer]:
    """A container that publishes one port over TCP and UDP, by each of them."""
    return [
        PublishedContainer(scene, container, transport, family, port) for transport in TRANSPORTS
    ]


def both(port: int, inside: int = INSIDE, *, at: Address | None = None) -> tuple[Publish, ...]:
    """A port published over TCP and UDP alike."""
    return tuple(Publish(port, inside, transport, at) for transport in TRANSPORTS)


def ranged(first: int, count: int) -> tuple[Publish, ...]:
    """A range, and a port of the runtime's choice for `CHOSEN`, over TCP and UDP alike."""
    return (
        *(Publish(first, INSIDE, transport, count=count) for transport in TRANSPORTS),
        *(Publish(0, CHOSEN, transport) for transport in TRANSPORTS),
    )


def home(runtime: Adapter, family: Family) -> Bridge:
    """Where the market's containers of a family are.

    By default, if that has the family, as a tap has both; else on a network. Who claims networks
    and has taps by default is on a network in either.
    """
    by_default = has_taps(runtime) or (family == 4 and runtime.dialect.default_network == "bridge")
    return Bridge() if by_default else Bridge(MARKET)


def has_taps(runtime: Adapter) -> bool:
    """Whether a container that publishes has a tap of its own, in place of a network.

    As it has by default; who claims networks besides is tried on those.
    """
    taps = runtime.dialect.default_network != "bridge"
    return taps and Feature.NETWORKS not in runtime.features


def is_relayed(runtime: Adapter) -> bool:
    """Whether a process in user space listens on the host, and calls the container itself."""
    return has_taps(runtime) or runtime.dialect.bridges != "host"


def link_of(scene: Scene, name: str) -> str:
    """By which of its interfaces a container is called; empty where `lo` may be one of them.

    As it may behind a tap, and where the caller has the container's own address.
    """
    tap = scene.plan.container(name).mode == Bridge() and has_taps(scene.runtime)
    return "" if tap or scene.runtime.dialect.published_source == "own" else "eth0"


def dual(scene: Scene) -> Bridge:
    """Where a container gets addresses of both families."""
    if has_taps(scene.runtime):
        return Bridge()
    scene.network("dual", ipv6=True)
    return Bridge("dual")


def meets(scene: Scene, caller: str, address: Address) -> bool:
    """Whether a call of the host's address gets to the host.

    Who has the same calls itself, and who is on a bridge that IPv6 does not lead out of nobody.
    """
    if caller == HOST:
        return True
    inside = {item.name for item in scene.plan.containers}
    if caller in inside and is_closed(scene.runtime, 4 if address.version == 4 else 6):
        return False
    bridges = scene.place(GATEWAY) if caller in inside and is_behind_bridges(scene) else None
    own = [*scene.place(caller).interfaces(), *(bridges.interfaces() if bridges else ())]
    return address not in {item.ip for item in own}


def is_behind_bridges(scene: Scene) -> bool:
    """Whether the runtime's bridges are in a namespace of their own, and there are some."""
    return scene.place(GATEWAY).identity != scene.place(HOST).identity


def is_closed(runtime: Adapter, family: Family) -> bool:
    """Whether containers reach nothing beyond the runtime's bridges, as declared."""
    return family == 6 and runtime.dialect.beyond6 == "unreachable"


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
        netlink.send([rtnetlink.add_address(index, more)])
        try:
            await_local(netlink, [more.ip])
            yield more.ip
        finally:
            netlink.send([rtnetlink.del_address(index, more)])


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


def _reaches(scene: Scene, family: Family, caller: str, other: str) -> bool:
    """Whether one reaches another that is not the host, whatever the port."""
    runtime = scene.runtime
    inside = {item.name for item in scene.plan.containers}
    match caller in inside, other in inside:
        case True, True:
            return not has_taps(runtime)
        case False, True:
            return not is_relayed(runtime)
        case True, False:
            return not is_closed(runtime, family)
        case _:
            return True


def assert_seen_as_declared(shop: PublishedContainer, caller: str, address: Address) -> None:
    """Who calls from outside is seen by its own address and port, as the gateway, or as neither."""
    meeting = shop.serves(caller, address)
    assert meeting
    match shop.scene.runtime.dialect.published_source:
        case "client":
            assert meeting.seen == meeting.own, f"{caller} calls {address}"
        case "gateway":
            assert meeting.seen[0] == shop.gateway(), f"{caller} calls {address}"
        case "own":
            assert meeting.seen[0] == shop.own(), f"{caller} calls {address}"


def assert_theirs(scene: Scene, transport: Transport, family: Family, port: int) -> None:
    """A port that the host has published is, on every other machine, that machine's own."""
    inside = {item.name for item in scene.plan.containers}
    present = inside | scene.places.keys()
    for caller, others in ELSEWHERE.items():
        for other in others:
            if not {caller, other} <= present or not _reaches(scene, family, caller, other):
                continue
            address = scene.place(other).address(family)
            with Listener(
                scene.place(other), transport, family=family, address=address, port=port
            ) as ear:
                met = ear.hears(scene.place(caller), answered=True)
            assert met, f"{caller} calls port {port} of {other}"


BESIDE: Final = "beside"
"""A container that is there already and publishes nothing."""

Where = Callable[[Family], Address]
"""An address of the host's, for each family."""


@dataclass(frozen=True, slots=True)
class PublishNetwork:
    """A network of the runtime's, and the families that its containers have."""

    scene: Scene
    home: Bridge
    families: tuple[Family, ...]
    port: int
    """Of the host's, and this test's alone, as the next one is."""

    @property
    def host(self) -> NetnsView:
        """The host."""
        return self.scene.place(HOST)

    def own(self, family: Family) -> Address:
        """The host's address on the LAN."""
        return self.scene.world.address(HOST, family)

    def on_br0(self, family: Family) -> Address:
        """The host's address on br0."""
        return pick(self.scene.world.topology.br0, family).ip

    def await_taps(self) -> None:
        """Wait until the host itself can call, where containers have taps.

        pasta has the host's own calls go to the tap's fe80:: address, which the kernel checks
        for a second (RFC 4862) like any other.
        """
        if has_taps(self.scene.runtime):
            self.scene.ready()

    def link(self) -> str:
        """The host's link on the network; empty where it has none."""
        if has_taps(self.scene.runtime):
            return ""
        return self.scene.runtime.network_facts(self.home.network).interface or ""

    def container(self, name: str, *ports: Publish) -> Container:
        """Start a container; it is removed after the test if it is still there."""
        return self.scene.container(name, self.home, ports=ports)

    def opened(self, name: str, *, at: Where | None = None) -> list[PublishedContainer]:
        """Start a container that publishes `port`, and tell how it is called.

        On one address of the host's in each family or on all, over TCP and over UDP.
        """
        ports = both(self.port)
        if at is not None:
            ports = tuple(
                item for family in self.families for item in both(self.port, at=at(family))
            )
        return self.shops(self.container(name, *ports))

    def shops(self, container: Container) -> list[PublishedContainer]:
        """Every way to call a container by `port`."""
        return [
            shop
            for family in self.families
            for shop in shops(container, self.scene, family, self.port)
        ]
