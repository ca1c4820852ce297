"""A container that publishes a port, and whoever calls it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from harness.addresses import LOOPBACKS
from harness.container import Container
from harness.model import ATTACKER, HOST, INTERNET, NS1, NS2, Bridge, Family, Publish
from harness.scene import Scene
from harness.topology import Address
from harness.traffic import TRANSPORTS, Ear, Meeting, Transport

INSIDE: Final = 41080
"""Where a container listens."""
PORTS: Final[dict[Transport, int]] = {"tcp": 8080, "udp": 8053}
"""The ports of the host at which the shared shop is, on every address."""
OWN: Final = 8180
"""The first port of the host that a test may publish by itself."""
MARKET: Final = "market"
"""The network with IPv6 on which the shared containers are."""
DUAL: Final = "dual"
"""The network with IPv4 and IPv6 that a test makes for itself."""


@dataclass(frozen=True, slots=True)
class Shop:
    """A container that listens on `INSIDE` over one transport, called by `port` of the host."""

    scene: Scene
    container: Container
    transport: Transport
    family: Family
    port: int

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

    def open(self, family: Family | None = None) -> Ear:
        """Listen inside, in its family or in the other."""
        family = family or self.family
        return Ear(self.container.net, self.transport, family=family, port=INSIDE)

    def serves(self, caller: str, address: Address) -> Meeting | None:
        """Somebody calls the published port on an address of the host, and is answered.

        `None` when the call is refused.
        """
        with self.open() as ear:
            place = self.scene.place(caller)
            return ear.hears(place, at=address, port=self.port, answered=True)

    def misses(self, caller: str, address: Address, *, port: int = 0) -> bool:
        """Whether such a call comes to nothing: refused, or swallowed on the way."""
        with self.open(4 if address.version == 4 else 6) as ear:
            quiet, place = self.scene.settle, self.scene.place(caller)
            return ear.hears(place, at=address, port=port or self.port, quiet=quiet) is None


def opened(
    scene: Scene,
    transport: Transport,
    family: Family,
    *,
    name: str = "web",
    at: Address | None = None,
    port: int = OWN,
) -> Shop:
    """Start a container at `home` that publishes `port`, on one address of the host or on all."""
    ports = (Publish(port, INSIDE, transport, at),)
    container = scene.container(name, home(scene, family), ports=ports)
    return Shop(scene, container, transport, family, port)


def shops(scene: Scene, container: Container, family: Family, port: int) -> list[Shop]:
    """A container that publishes one port `both` ways, over each transport."""
    return [Shop(scene, container, transport, family, port) for transport in TRANSPORTS]


def both(port: int, inside: int = INSIDE, *, at: Address | None = None) -> tuple[Publish, ...]:
    """A port published over TCP and UDP alike."""
    return tuple(Publish(port, inside, transport, at) for transport in TRANSPORTS)


def home(scene: Scene, family: Family) -> Bridge:
    """Where containers of a family are: on the default network, or on one with IPv6."""
    if family == 4:
        return Bridge()
    known = {network.name for network in scene.plan.networks}
    if MARKET in known:
        return Bridge(MARKET)
    if DUAL not in known:
        scene.network(DUAL, ipv6=True)
    return Bridge(DUAL)


def addresses(scene: Scene, family: Family) -> list[Address]:
    """Every address of the host's that others can call, the bridges' among them."""
    found = (item.ip for item in scene.place(HOST).interfaces())
    return [item for item in found if item.version == family and not item.is_loopback]


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
    for caller, others in ELSEWHERE.items():
        for other in others:
            address = scene.place(other).address(family)
            with Ear(
                scene.place(other), transport, family=family, address=address, port=port
            ) as ear:
                met = ear.hears(scene.place(caller), answered=True)
            assert met, f"{caller} calls port {port} of {other}"
