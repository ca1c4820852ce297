"""Three containers on one network in one address family, for packet tests.

The fixtures are package-scoped, and a suite's `conftest.py` imports them. The tests of the suite
share the three containers of each family and must not change them.
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
from harness.testbench.packets.capture import Capture, Tap, TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.features import restarts

NAMES: Final = ("a", "b", "c")
DUAL: Final = "dual"
"""Network of the IPv6 tests, with both families."""
PLAIN: Final = "plain"
"""User-defined network with IPv4 only."""

EndName = str | Address | None
"""A name, an address, or `None` for any address in a pattern."""


@dataclass(frozen=True, slots=True)
class ThreeContainers:
    """The containers `a`, `b` and `c` on `network`, tested in one address family.

    A name is that of a container or of a namespace of the world. The name `gateway` is the host's
    end of the network.
    """

    scene: Scene
    family: Family
    network: str
    world_wires: TapPool
    own_wires: TapPool
    # Caches, because the containers' addresses do not change.
    _addresses: dict[str, Address] = field(default_factory=dict)
    _macs: dict[str, str] = field(default_factory=dict)
    _taps: dict[str, Tap] = field(default_factory=dict)

    @property
    def bridge(self) -> str:
        """Return the network's interface in the host."""
        name = self.scene.runtime.network_facts(self.network).interface
        assert name is not None
        return name

    def netns(self, name: str) -> NetnsView:
        """Return the network namespace that a name stands for."""
        return self.scene.netns(name)

    def address(self, name: str) -> Address:
        """Return the address at which containers of the network reach the owner of a name."""
        if name not in self._addresses:
            found = self.scene.address(Cell(NAMES[0], name, Protocol.ICMP, self.family))
            assert found is not None, f"{name} has no IPv{self.family} address"
            self._addresses[name] = found
        return self._addresses[name]

    def mac(self, name: str) -> str:
        """Return the MAC of a container or the gateway."""
        if name not in self._macs:
            self._macs[name] = self.netns(name).links()[self.link(name)].mac
        return self._macs[name]

    def link(self, name: str) -> str:
        """Return the interface of a name: the network's bridge for `gateway`, otherwise `eth0`."""
        return self.bridge if name == GATEWAY else "eth0"

    # --- sending

    def client(self, caller: str, to: str, protocol: Protocol, **options: Any) -> Client:
        """Open a client socket from one name to another, with the options of `Client`."""
        return Client(self.netns(caller), protocol, self.address(to), **options)

    def settle(self) -> None:
        """Wait until no sent packet is in transit."""
        self.scene.settle()

    # --- capturing

    @contextlib.contextmanager
    def capture(self, *names: str) -> Iterator[Capture]:
        """Capture packets at `eth0` of each name, or at the network's bridge for `gateway`.

        The capture ends when all packets that the body sent have arrived.
        """
        with Capture([self._tap(name) for name in names]) as wire:
            yield wire
            self.settle()

    def at(self, name: str) -> str:
        """Return the place at which `capture` listens for a name, as in `Frame.where`."""
        return self._tap(name).where

    def _tap(self, name: str) -> Tap:
        if name not in self._taps:
            wires = self.world_wires if name in self.scene.world_netns else self.own_wires
            self._taps[name] = wires.tap(self.netns(name), self.link(name))
        return self._taps[name]

    def ip(self, src: EndName = None, dst: EndName = None, *, ttl: int | None = None) -> Packet:
        """Return an IP header from `src` to `dst`."""
        return craft.ip(self.family, src=self._end(src), dst=self._end(dst), ttl=ttl)

    def _end(self, end: EndName) -> Address | None:
        return self.address(end) if isinstance(end, str) else end

    def error(self, name: str, **fields: Any) -> Packet:
        """Return an ICMP error of the family, as `craft.error` does."""
        return craft.error(self.family, name, **fields)

    def request(self, protocol: Protocol, *, sport: Any, dport: Any) -> Packet:
        """Return the first packet of an exchange, as `craft.request` does."""
        return craft.request(self.family, protocol, sport=sport, dport=dport)


class TrioNetwork(NamedTuple):
    """The network of three containers, and the family in which it is tested."""

    family: Family
    network: str = DEFAULT_NETWORK


def plan(home: TrioNetwork) -> Plan:
    """Return the plan with three containers on a network."""
    own = NetworkSpec(home.network, ipv6=home.family == 6)
    networks = () if home.network == DEFAULT_NETWORK else (own,)
    mode = Bridge(home.network)
    return Plan(networks=networks, containers=tuple(ContainerSpec(name, mode) for name in NAMES))


EACH_FAMILY: Final = (
    pytest.param(4, id="IPv4"),
    pytest.param(6, id="IPv6", marks=requirement("V6-1")),
)
"""Parameters of fixtures that have an address family."""
both_families: Final = pytest.mark.parametrize("family", EACH_FAMILY)
"""Parameters of tests that do not use `trio`: each family."""


@pytest.fixture(
    scope="package",
    params=[
        pytest.param(TrioNetwork(4), id="IPv4"),
        pytest.param(TrioNetwork(6, DUAL), id="IPv6", marks=requirement("V6-1")),
        pytest.param(TrioNetwork(4, PLAIN), id="IPv4-user-defined"),
    ],
)
def trio(
    world: World, runtime: Adapter, wires: TapPool, request: pytest.FixtureRequest
) -> Iterator[ThreeContainers]:
    """Share three containers on one network; tests must not change them.

    The parameters are one network for each family, and a user-defined one for IPv4 where the
    runtime has networks. On the user-defined network `a` and `b` are restarted, where the runtime
    can restart.
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
