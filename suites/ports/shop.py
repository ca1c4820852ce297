"""A container that publishes a port, and whoever calls it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from harness.addresses import LOOPBACKS
from harness.container import Container
from harness.model import (
    HOST,
    Bridge,
    Family,
    Publish,
)
from harness.scene import Scene
from harness.topology import Address
from harness.traffic import Ear, Meeting, Transport, free_port

INSIDE: Final = 41080
"""Where a container listens."""
DUAL: Final = "dual"
"""The network with IPv4 and IPv6."""


def home(scene: Scene, family: Family) -> Bridge:
    """Where containers of a family are: on the default network, or on one with IPv6."""
    if family == 4:
        return Bridge()
    if DUAL not in {network.name for network in scene.plan.networks}:
        scene.network(DUAL, ipv6=True)
    return Bridge(DUAL)


class Shop:
    """A container that listens on `INSIDE`, published on `port` of the host.

    On one address, `at`, or on all; `port` is a free one where none is given. Options
    as in `ContainerSpec`.
    """

    def __init__(
        self,
        scene: Scene,
        transport: Transport,
        family: Family,
        *,
        name: str = "shop",
        at: Address | None = None,
        port: int = 0,
        mode: Bridge | None = None,
        **options: Any,
    ) -> None:
        self._scene, self._transport, self._family = scene, transport, family
        self.port = port or free_port(scene.place(HOST), transport)
        publish = Publish(self.port, INSIDE, transport, at)
        own = mode or home(scene, family)
        self.container: Container = scene.container(name, own, ports=(publish,), **options)

    @property
    def network(self) -> str:
        """The network that it is on."""
        return self._scene.plan.container(self.container.name).networks[0]

    def own(self) -> Address:
        """The container's own address."""
        address = self.container.net.address(self._family)
        assert address is not None
        return address

    def gateway(self) -> Address:
        """The host's address on its network."""
        facts = self._scene.runtime.network_facts(self.network)
        return next(item.ip for item in facts.gateways if item.version == self._family)

    def open(self) -> Ear:
        """Listen inside."""
        return Ear(self.container.net, self._transport, family=self._family, port=INSIDE)

    def hears(self, caller: str, address: Address) -> Meeting | None:
        """Somebody calls the published port on an address of the host; `None` when refused."""
        with self.open() as ear:
            return ear.hears(self._scene.place(caller), at=address, port=self.port)

    def misses(self, caller: str, address: Address, *, port: int = 0) -> bool:
        """Whether such a call comes to nothing: refused, or swallowed on the way."""
        with self.open() as ear:
            quiet, place = self._scene.settle, self._scene.place(caller)
            return ear.hears(place, at=address, port=port or self.port, quiet=quiet) is None


def addresses(scene: Scene, family: Family) -> list[Address]:
    """Every address of the host's that others can call, the bridges' among them."""
    found = (item.ip for item in scene.place(HOST).interfaces())
    return [item for item in found if item.version == family and not item.is_loopback]


def callers(
    scene: Scene, family: Family, outside: tuple[str, ...]
) -> Iterator[tuple[str, Address]]:
    """Who calls which address of the host: those outside and itself every one, and its loopback."""
    for address in addresses(scene, family):
        for caller in (*outside, HOST):
            yield caller, address
    yield HOST, LOOPBACKS[family]
