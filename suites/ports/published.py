"""A container with published ports, and connections of clients to these ports."""

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
from harness.testbench.container import Container
from harness.testbench.listener import TRANSPORTS, Exchange, Listener, Transport
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import LOOPBACKS, Scene
from linux import rtnetlink
from linux.netlink import Netlink
from linux.readiness import await_local

INSIDE: Final = 31080
"""Port of listeners in a container, which is not in the kernel's ephemeral range."""
CHOSEN: Final = INSIDE + 100
"""Port of listeners in a container to which an automatic host port leads."""
PORTS: Final[dict[Transport, int]] = {"tcp": 8080, "udp": 8053}
"""Host ports that the shared container publishes on every address."""
OWN: Final = 8180
"""First host port that tests publish for themselves."""
SHARED_NETWORK: Final = "market"
"""Network of the shared containers if the default network lacks the address family."""


class PortCall(NamedTuple):
    """A client's attempt to reach an address at a port, or at the published port if `port` is 0."""

    caller: str
    address: Address
    port: int = 0


@dataclass(frozen=True, slots=True)
class PublishedContainer:
    """A container that listens on `INSIDE` over one transport; host port `port` leads to it."""

    scene: Scene
    container: Container
    transport: Transport
    family: Family
    port: int
    listeners: Mapping[Family, Listener] = field(default_factory=dict)
    """Listeners that stay open. In a family without one, each attempt opens a listener."""

    @property
    def network(self) -> str:
        """Return the network of the container."""
        return self.scene.plan.container(self.container.name).networks[0]

    @property
    def inner_family(self) -> Family:
        """Return the family in which the container sees the address of a client of `family`."""
        return inner_family(self.scene.runtime, self.family)

    def own(self) -> Address:
        """Return the container's own address in that inner family."""
        address = self.container.net.address(self.inner_family)
        assert address is not None
        return address

    def gateway(self) -> Address:
        """Return the host's address on the container's network."""
        facts = self.scene.runtime.network_facts(self.network)
        return next(item.ip for item in facts.gateways if item.version == self.inner_family)

    @contextmanager
    def open(self) -> Iterator[Self]:
        """Keep a listener open in the container while the body runs."""
        with self.listener() as listener:
            yield replace(self, listeners={self.inner_family: listener})

    def listener(self, family: Family | None = None) -> Listener:
        """Return a listener in the container, in `family` or the family to which the port leads."""
        family = family or self.inner_family
        return Listener(self.container.net, self.transport, family=family, port=INSIDE)

    @contextmanager
    def _listening(self, family: Family) -> Iterator[Listener]:
        if family in self.listeners:
            yield self.listeners[family]
        else:
            with self.listener(family) as listener:
                yield listener

    def serves(self, caller: str, address: Address, *, port: int = 0) -> Exchange | None:
        """Send from a client to an address and port of the host, and await the container's reply.

        The port is by default the published one. Return `None` if the attempt is rejected.
        """
        with self._listening(self.inner_family) as listener:
            view = self.scene.netns(caller)
            return listener.reached_from(view, at=address, port=port or self.port, answered=True)

    def reaches(self, caller: str, address: Address) -> bool:
        """Return True if a client gets a reply, and False if the attempt is rejected or dropped.

        Use this method for ports behind a process in user space. Such an attempt may still be
        pending when no packet is in transit.
        """
        with suppress(TimeoutError):
            return self.serves(caller, address) is not None
        return False

    def delivered(self, calls: Iterable[PortCall]) -> list[str]:
        """Start many attempts at once, and return those that arrive, neither rejected nor dropped.

        Listeners wait in the client's family and in the family to which a published port leads.
        """
        made = [(self.scene.netns(caller), at, port or self.port) for caller, at, port in calls]
        found: dict[str, None] = {}
        for family in FAMILIES:
            if own := [item for item in made if item[1].version == family]:
                for listening in {family, inner_family(self.scene.runtime, family)}:
                    with self._listening(listening) as listener:
                        found |= dict.fromkeys(listener.delivered(own, self.scene.settle))
        return list(found)


def inner_family(runtime: Adapter, family: Family) -> Family:
    """Return the family of a client's address, as a container sees it at its published port."""
    return 4 if runtime.dialect.published6 == "ipv4" else family


def published_on(
    container: Container, scene: Scene, family: Family, port: int = OWN
) -> list[PublishedContainer]:
    """Return a container with one published port, once for TCP and once for UDP."""
    return [
        PublishedContainer(scene, container, transport, family, port) for transport in TRANSPORTS
    ]


def both(port: int, inside: int = INSIDE, *, at: Address | None = None) -> tuple[Publish, ...]:
    """Return the two port mappings of one port, over TCP and UDP."""
    return tuple(Publish(port, inside, transport, at) for transport in TRANSPORTS)


def ranged(first: int, count: int) -> tuple[Publish, ...]:
    """Return mappings of a range of ports, and of `CHOSEN` to an automatic host port.

    Each mapping is for TCP and for UDP.
    """
    return (
        *(Publish(first, INSIDE, transport, count=count) for transport in TRANSPORTS),
        *(Publish(0, CHOSEN, transport) for transport in TRANSPORTS),
    )


def home(runtime: Adapter, family: Family) -> Bridge:
    """Return the mode of the shared containers of a family.

    This is the default network if that network or a tap has the family, otherwise a user-defined
    one. A runtime with both networks and default taps uses a user-defined network in both families.
    """
    by_default = has_taps(runtime) or (family == 4 and runtime.dialect.default_network == "bridge")
    return Bridge() if by_default else Bridge(SHARED_NETWORK)


def has_taps(runtime: Adapter) -> bool:
    """Return True if containers with published ports have a tap instead of a bridge network.

    If the runtime has networks too, the tests use these, and the result is False.
    """
    taps = runtime.dialect.default_network != "bridge"
    return taps and Feature.NETWORKS not in runtime.features


def is_relayed(runtime: Adapter) -> bool:
    """Return True if a user-space process listens on the host and relays data to the container."""
    return has_taps(runtime) or runtime.dialect.bridges != "host"


def link_of(scene: Scene, name: str) -> str:
    """Return the interface at which packets of a container's clients arrive.

    The result is empty, for any interface, if they may arrive at `lo`. This is so behind a tap, and
    if the container sees its own address as the source.
    """
    tap = scene.plan.container(name).mode == Bridge() and has_taps(scene.runtime)
    return "" if tap or scene.runtime.dialect.published_source == "own" else "eth0"


def dual(scene: Scene) -> Bridge:
    """Return a mode in which a container gets addresses of both families."""
    if has_taps(scene.runtime):
        return Bridge()
    scene.network("dual", ipv6=True)
    return Bridge("dual")


def reaches_host(scene: Scene, caller: str, address: Address) -> bool:
    """Return True if a client that sends to an address of the host reaches the host.

    A client that has the same address reaches itself. Some bridges do not forward IPv6.
    """
    if caller == HOST:
        return True
    inside = {item.name for item in scene.plan.containers}
    if caller in inside and is_closed(scene.runtime, 4 if address.version == 4 else 6):
        return False
    bridges = scene.netns(GATEWAY) if caller in inside and is_behind_bridges(scene) else None
    own = [*scene.netns(caller).interfaces(), *(bridges.interfaces() if bridges else ())]
    return address not in {item.ip for item in own}


def is_behind_bridges(scene: Scene) -> bool:
    """Return True if the runtime's bridges are in another netns than the host's."""
    return scene.netns(GATEWAY).identity != scene.netns(HOST).identity


def is_closed(runtime: Adapter, family: Family) -> bool:
    """Return True if containers reach nothing beyond the bridges in a family, as declared."""
    return family == 6 and runtime.dialect.beyond6 == "unreachable"


def addresses(scene: Scene, family: Family) -> list[Address]:
    """Return the addresses of the host, including those of bridges, without the loopback."""
    found = (item.ip for item in scene.netns(HOST).interfaces())
    return [item for item in found if item.version == family and not item.is_loopback]


@contextmanager
def extra_address(scene: Scene, family: Family) -> Iterator[Address]:
    """Add another LAN address to the host while the body runs."""
    own = pick(scene.world.topology.host, family)
    more = ip_interface(f"{own.ip + 70}/{own.network.prefixlen}")
    host = scene.netns(HOST)
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
    """Yield pairs of a client and an address of the host.

    Outsiders and the host use every address, and the host its loopback too.
    """
    for address in addresses(scene, family):
        for caller in (*outside, HOST):
            yield caller, address
    yield HOST, LOOPBACKS[family]


ELSEWHERE: Final[dict[str, tuple[str, ...]]] = {
    "published": ("peer", NS1, ATTACKER, INTERNET),
    "peer": (NS1, ATTACKER, INTERNET),
    "outside": (NS1, ATTACKER, INTERNET),
    HOST: ("peer", "outside", NS1, ATTACKER, INTERNET),
    NS1: (NS2, ATTACKER, INTERNET),
    ATTACKER: (NS1, INTERNET),
    INTERNET: (NS1,),
}
"""Targets other than the host, by client. Their traffic may be routed by the host."""


def _reaches(scene: Scene, family: Family, caller: str, other: str) -> bool:
    """Return True if a client can reach a target other than the host, on any port."""
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


def assert_seen_as_declared(published: PublishedContainer, caller: str, address: Address) -> None:
    """Assert that the container sees an outside client with the source that is declared."""
    exchange = published.serves(caller, address)
    assert exchange
    match published.scene.runtime.dialect.published_source:
        case "client":
            assert exchange.seen == exchange.own, f"{caller} calls {address}"
        case "gateway":
            assert exchange.seen[0] == published.gateway(), f"{caller} calls {address}"
        case "own":
            assert exchange.seen[0] == published.own(), f"{caller} calls {address}"


def assert_not_redirected(scene: Scene, transport: Transport, family: Family, port: int) -> None:
    """Assert that traffic to the number of a published port on other machines is not redirected."""
    inside = {item.name for item in scene.plan.containers}
    present = inside | scene.world_netns.keys()
    for caller, others in ELSEWHERE.items():
        for other in others:
            if not {caller, other} <= present or not _reaches(scene, family, caller, other):
                continue
            address = scene.netns(other).address(family)
            with Listener(
                scene.netns(other), transport, family=family, address=address, port=port
            ) as listener:
                exchange = listener.reached_from(scene.netns(caller), answered=True)
            assert exchange, f"{caller} calls port {port} of {other}"


BESIDE: Final = "beside"
"""Name of a running container without published ports."""

Where = Callable[[Family], Address]
"""Function from a family to an address of the host."""


@dataclass(frozen=True, slots=True)
class PublishNetwork:
    """A network for published ports, its address families, and a host port for one test."""

    scene: Scene
    home: Bridge
    families: tuple[Family, ...]
    port: int
    """Host port for one test. The test may use the next port too."""

    @property
    def host(self) -> NetnsView:
        """Return the host's network namespace."""
        return self.scene.netns(HOST)

    def own(self, family: Family) -> Address:
        """Return the host's address on the LAN."""
        return self.scene.world.address(HOST, family)

    def on_br0(self, family: Family) -> Address:
        """Return the host's address on br0."""
        return pick(self.scene.world.topology.br0, family).ip

    def await_taps(self) -> None:
        """Wait until the host itself reaches published ports, if containers have taps.

        pasta sends the host's own packets to the tap's fe80:: address, which is tentative for one
        second (RFC 4862).
        """
        if has_taps(self.scene.runtime):
            self.scene.ready()

    def link(self) -> str:
        """Return the host's interface on the network, or an empty string if it has none."""
        if has_taps(self.scene.runtime):
            return ""
        return self.scene.runtime.network_facts(self.home.network).interface or ""

    def container(self, name: str, *ports: Publish) -> Container:
        """Start a container on the network, which is removed after the test if it still exists."""
        return self.scene.container(name, self.home, ports=ports)

    def publish(self, name: str, *, at: Where | None = None) -> list[PublishedContainer]:
        """Start a container that publishes `port` over TCP and UDP, and return its `views`.

        `at` returns the address of the host to publish on in each family; the default is every
        address.
        """
        ports = both(self.port)
        if at is not None:
            ports = tuple(
                item for family in self.families for item in both(self.port, at=at(family))
            )
        return self.views(self.container(name, *ports))

    def views(self, container: Container) -> list[PublishedContainer]:
        """Return a container with its published port, once for each family and transport."""
        return [
            published
            for family in self.families
            for published in published_on(container, self.scene, family, self.port)
        ]
