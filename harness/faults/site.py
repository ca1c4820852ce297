"""What a fault acts on: the host, a network, a container of a live runtime, at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from harness.adapters.protocol import Adapter, Facts, NetworkFacts, RuntimeRefused
from harness.faults.ground import Ground
from harness.model import Bridge, ContainerSpec, Mode
from harness.place import Place, fixed
from harness.topology import Address, Interface
from harness.world.host import Host
from linux import rtnl

_LOG: Final = "/run/netmodes/fault.log"


class Plug(NamedTuple):
    """How a container is plugged into one network of the runtime's."""

    network: NetworkFacts
    bridge: str
    """The network's interface in the host."""
    inside: str
    """The container's interface, such as `eth0`."""
    outside: str
    """The host's end of it, a port of the bridge."""
    addresses: tuple[Interface, ...]
    """Those of the inside, without link-local ones."""
    gateways: tuple[Interface, ...]
    """The host's addresses on the network."""


@dataclass(frozen=True, slots=True)
class Site:
    """The live surroundings of a fault.

    `memory` is kept from one call of the fault to the next within one host. `runtime` is the
    healthy adapter. `spec` is what was asked for, `facts` what the runtime reports of the
    container, `network` what it reports of the network that the moment is about; each is
    `None` where there is none, or none any more.
    """

    moment: str
    world_host: Host
    runtime: Adapter
    memory: dict[str, Any]
    name: str = ""
    """The name of the container, or of the network where the moment is about one."""
    spec: ContainerSpec | None = None
    facts: Facts | None = None
    network: NetworkFacts | None = None

    # --- places

    @property
    def host(self) -> Ground:
        """The host's network namespace."""
        return Ground(fixed("host", self.world_host.netns))

    @property
    def inside(self) -> Ground:
        """The container's network namespace: the host's own in mode host, so ask `mode`."""
        assert self.facts is not None, f"there is no container at the moment {self.moment}"
        return Ground(Place(self.name, partial(self.world_host.netns_of, self.facts.pid)))

    @property
    def mode(self) -> Mode | None:
        """The net mode that the container was asked to have."""
        return self.spec.mode if self.spec else None

    @property
    def is_bridged(self) -> bool:
        """Whether the container has interfaces of its own on networks of the runtime."""
        return isinstance(self.mode, Bridge)

    def plugs(self) -> Iterator[Plug]:
        """Each network that the running container is on; none in the modes without any."""
        if self.facts is None or not self.facts.pid or not self.is_bridged:
            return
        outside = {link.ifindex: link for link in self.host.links().values()}
        inside = self.inside.links()
        for endpoint in self.facts.endpoints:
            network = self.runtime.network_facts(endpoint.network)
            told = {item for item in (endpoint.address, endpoint.address6) if item}
            for name, link in inside.items():
                addresses = tuple(self.inside.addresses(name))
                peer = outside.get(link.peer or 0)
                if told & set(addresses) and peer and network.interface:
                    yield Plug(
                        network, network.interface, name, peer.name, addresses, network.gateways
                    )

    @property
    def specs(self) -> Mapping[str, ContainerSpec]:
        """What was asked for, of every container so far, by name."""
        found: Mapping[str, ContainerSpec] = self.memory["specs"]
        return found

    @property
    def is_internal(self) -> bool:
        """Whether the network that the moment is about was asked to be internal."""
        return self.network is not None and self.network.name in self.memory.get("internal", ())

    def bridges(self) -> list[str]:
        """The interfaces in the host of every network that has been seen, the default's first."""
        names = ["bridge", *self.memory["networks"]]
        found = []
        for name in names:
            try:
                facts = self.runtime.network_facts(name)
            except RuntimeRefused:  # it has been removed
                continue
            if facts.interface:
                found.append(facts.interface)
        return found

    def uplink(self) -> str:
        """The host's interface towards everything else: that of its default route."""
        links = {link.ifindex: name for name, link in self.host.links().items()}
        return next(
            links[route.oif]
            for route in self.host.place.routes()
            if route.destination is None and route.oif
        )

    def resolver(self) -> Address:
        """The first name server of the host's own resolv.conf."""
        for line in self.world_host.call(_read, "/etc/resolv.conf").splitlines():
            if line.startswith("nameserver"):
                return ip_address(line.split()[1])
        raise LookupError("the host's resolv.conf names no resolver")

    # --- files and processes

    def path(self, inner: str) -> str:
        """Where a file of the running container is, as seen from here."""
        assert self.facts is not None, f"there is no container at the moment {self.moment}"
        return f"{self.world_host.proc}/{self.facts.pid}/root{inner}"

    def read(self, inner: str) -> str:
        """A file of the running container."""
        with open(self.path(inner), encoding="utf-8") as file:
            return file.read()

    def write(self, inner: str, text: str) -> None:
        """Write a file of the running container anew, in its place."""
        with open(self.path(inner), "w", encoding="utf-8") as file:
            file.write(text)

    def call(self, function: Any, *args: Any) -> Any:
        """Call a function of a module inside the host: its files, its processes, its namespaces."""
        return self.world_host.call(function, *args)

    def spawn(self, *argv: str) -> int:
        """Start a process in the host that stays; its pid there."""
        return self.world_host.spawn(argv, log=_LOG)

    def other_containers(self) -> Mapping[str, Facts]:
        """The running containers that were started before this one, by name."""
        found = {}
        for name in self.memory["containers"]:
            if name != self.name:
                try:
                    facts = self.runtime.inspect(name)
                except RuntimeRefused:
                    continue
                if facts.running:
                    found[name] = facts
        return found

    def ground(self, facts: Facts) -> Ground:
        """The network namespace of another container."""
        return Ground(Place(facts.name, partial(self.world_host.netns_of, facts.pid)))

    def leave_inside(self, facts: Facts, name: str = "extra0") -> None:
        """Make an interface that leads nowhere inside a container."""
        self.ground(facts).ensure(rtnl.add_veth(name, f"{name}p"))


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
