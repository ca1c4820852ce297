"""Three containers on one network, as one address family has them: whom packet tests watch.

The fixtures are package-scoped: a suite's `conftest.py` takes them in by importing
them, and its tests share one trio per family. Look, do not change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pytest
from scapy.packet import Packet

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import (
    DEFAULT_NETWORK,
    GATEWAY,
    Bridge,
    Cell,
    ContainerSpec,
    Family,
    NetworkSpec,
    Plan,
    Protocol,
)
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench.client import Client
from harness.testbench.netns_view import NetnsView
from harness.testbench.packets import craft
from harness.testbench.packets.capture import Capture, Tap
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.features import restarts

NAMES: Final = ("a", "b", "c")
DUAL: Final = "dual"
"""The network with IPv4 and IPv6 on which the IPv6 trio is."""
PLAIN: Final = "plain"
"""A network of one's own with IPv4 alone."""

Whom = str | Address | None
"""Somebody by name, an address, or in templates whoever."""


@dataclass(frozen=True, slots=True)
class ThreeContainers:
    """The containers a, b and c of a scene, on `network`, in one family.

    Wherever a name is asked for it is a container's, one of the world's own, or
    `gateway` for the host's end of the network.
    """

    scene: Scene
    family: Family
    network: str
    world_wires: TapPool
    own_wires: TapPool
    # Looked up once: a trio keeps what it has.
    _addresses: dict[str, Address] = field(default_factory=dict)
    _macs: dict[str, str] = field(default_factory=dict)
    _taps: dict[str, Tap] = field(default_factory=dict)

    @property
    def bridge(self) -> str:
        """The network's interface in the host."""
        name = self.scene.runtime.network_facts(self.network).interface
        assert name is not None
        return name

    def place(self, name: str) -> NetnsView:
        """Where somebody lives."""
        return self.scene.place(name)

    def address(self, name: str) -> Address:
        """By which address a container on the network reaches somebody."""
        if name not in self._addresses:
            found = self.scene.address(Cell(NAMES[0], name, Protocol.ICMP, self.family))
            assert found is not None, f"{name} has no IPv{self.family} address"
            self._addresses[name] = found
        return self._addresses[name]

    def mac(self, name: str) -> str:
        """The MAC of a container, or of the gateway."""
        if name not in self._macs:
            self._macs[name] = self.place(name).links()[self.link(name)].mac
        return self._macs[name]

    def link(self, name: str) -> str:
        """The interface by which somebody is on the network, or on a link of its own."""
        return self.bridge if name == GATEWAY else "eth0"

    # --- what is sent

    def call(self, caller: str, to: str, protocol: Protocol, **options: Any) -> Client:
        """A call from one to the other; options as in `Client`."""
        return Client(self.place(caller), protocol, self.address(to), **options)

    def settle(self) -> None:
        """Return once nothing that was sent is under way any more."""
        self.scene.settle()

    # --- what is seen

    @contextlib.contextmanager
    def capture(self, *names: str) -> Iterator[Capture]:
        """What passes `eth0` of each of them, the network's bridge for `gateway`.

        Once the body has run, and what it sent has arrived.
        """
        with Capture([self._tap(name) for name in names]) as wire:
            yield wire
            self.settle()

    def at(self, name: str) -> str:
        """The interface at which `capture` listens, in the words of `Frame.where`."""
        return self._tap(name).where

    def _tap(self, name: str) -> Tap:
        if name not in self._taps:
            wires = self.world_wires if name in self.scene.places else self.own_wires
            self._taps[name] = wires.tap(self.place(name), self.link(name))
        return self._taps[name]

    def ip(self, src: Whom = None, dst: Whom = None, *, ttl: int | None = None) -> Packet:
        """An IP header from one to another."""
        return craft.ip(self.family, src=self._whom(src), dst=self._whom(dst), ttl=ttl)

    def _whom(self, whom: Whom) -> Address | None:
        return self.address(whom) if isinstance(whom, str) else whom

    def error(self, name: str, **fields: Any) -> Packet:
        """An ICMP error, as in `craft.error`."""
        return craft.error(self.family, name, **fields)

    def request(self, protocol: Protocol, *, sport: Any, dport: Any) -> Packet:
        """What begins an exchange, as in `craft.request`."""
        return craft.request(self.family, protocol, sport=sport, dport=dport)


class TrioNetwork(NamedTuple):
    """Where a trio lives: on which network, and in which of its families it is watched."""

    family: Family
    network: str = DEFAULT_NETWORK


def plan(home: TrioNetwork) -> Plan:
    """The containers of a trio."""
    own = NetworkSpec(home.network, ipv6=home.family == 6)
    networks = () if home.network == DEFAULT_NETWORK else (own,)
    mode = Bridge(home.network)
    return Plan(networks=networks, containers=tuple(ContainerSpec(name, mode) for name in NAMES))


EACH_FAMILY: Final = (
    pytest.param(4, id="IPv4"),
    pytest.param(6, id="IPv6", marks=requirement("V6-1")),
)
"""For fixtures that have a family each."""
both_families: Final = pytest.mark.parametrize("family", EACH_FAMILY)
"""For tests without a trio: once for each family."""


@pytest.fixture(
    scope="package",
    params=[
        pytest.param(TrioNetwork(4), id="IPv4"),
        pytest.param(TrioNetwork(6, DUAL), id="IPv6", marks=requirement("V6-1")),
        pytest.param(TrioNetwork(4, PLAIN), id="IPv4, own network"),
    ],
)
def trio(
    world: World, runtime: Adapter, wires: TapPool, request: pytest.FixtureRequest
) -> Iterator[ThreeContainers]:
    """Three containers on one network, shared: look, do not change.

    Every promise about packets, once for each family, and for IPv4 on a network of one's own too,
    where the runtime has such; there `a` and `b` have been started again, where it can do that.
    """
    home: TrioNetwork = request.param
    if home.network == PLAIN and Feature.NETWORKS not in runtime.features:
        home = TrioNetwork(home.family)
    with Scene(world, runtime, plan(home)) as scene, TapPool() as own:
        if home.network == PLAIN and restarts(runtime):
            for name in ("a", "b"):
                scene[name].stop()
                scene.start(name)
        scene.ready()
        yield ThreeContainers(scene, home.family, home.network, wires, own)
