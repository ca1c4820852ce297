"""The fair: where tests start containers that publish a port, in every family that there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness.model.plan import HOST, Bridge, Family, Publish
from harness.model.topology import Address, pick
from harness.testbench.container import Container
from harness.testbench.netns_view import Place
from harness.testbench.scene import Scene
from suites.ports.shop import Shop, both, has_taps, shops

BESIDE: Final = "beside"
"""A container that is there already and publishes nothing."""

Where = Callable[[Family], Address]
"""An address of the host's, for each family."""


@dataclass(frozen=True, slots=True)
class Fair:
    """A network of the runtime's, and the families that its containers have."""

    scene: Scene
    home: Bridge
    families: tuple[Family, ...]
    port: int
    """Of the host's, and this test's alone, as the next one is."""

    @property
    def host(self) -> Place:
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

    def opened(self, name: str, *, at: Where | None = None) -> list[Shop]:
        """Start a container that publishes `port`, and tell how it is called.

        On one address of the host's in each family or on all, over TCP and over UDP.
        """
        ports = both(self.port)
        if at is not None:
            ports = tuple(
                item for family in self.families for item in both(self.port, at=at(family))
            )
        return self.shops(self.container(name, *ports))

    def shops(self, container: Container) -> list[Shop]:
        """Every way to call a container by `port`."""
        return [
            shop
            for family in self.families
            for shop in shops(container, self.scene, family, self.port)
        ]
