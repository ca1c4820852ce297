"""What a fault acts on: the host, a network, a container of a live runtime, at one moment."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any, Final, NamedTuple

from harness.adapters.protocol import Adapter, ContainerInfo, NetworkInfo, RuntimeRefused
from harness.faults.nft_rules import DecodedRule, entries
from harness.model.plan import Bridge, ContainerSpec, Mode
from harness.model.topology import Address, Interface
from harness.testbench.netns_view import NetnsView, fixed
from harness.world.host import HostMachine
from linux import nftables, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, NetlinkError, Request

_LOG: Final = "/run/netmodes/fault.log"


class FaultLink(NamedTuple):
    """How a container is plugged into one network of the runtime's."""

    network: NetworkInfo
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
class FaultContext:
    """The live surroundings of a fault.

    `memory` is kept from one call of the fault to the next within one host. `runtime` is the
    healthy adapter. `spec` is what was asked for, `facts` what the runtime reports of the
    container, `network` what it reports of the network that the moment is about; each is
    `None` where there is none, or none any more.
    """

    moment: str
    world_host: HostMachine
    runtime: Adapter
    memory: dict[str, Any]
    name: str = ""
    """The name of the container, or of the network where the moment is about one."""
    spec: ContainerSpec | None = None
    facts: ContainerInfo | None = None
    network: NetworkInfo | None = None

    # --- places

    @property
    def host(self) -> NetnsEditor:
        """The host's network namespace."""
        return NetnsEditor(fixed("host", self.world_host.netns))

    @property
    def inside(self) -> NetnsEditor:
        """The container's network namespace: the host's own in mode host, so ask `mode`."""
        assert self.facts is not None, f"there is no container at the moment {self.moment}"
        return NetnsEditor(NetnsView(self.name, partial(self.world_host.netns_of, self.facts.pid)))

    @property
    def mode(self) -> Mode | None:
        """The net mode that the container was asked to have."""
        return self.spec.mode if self.spec else None

    @property
    def is_bridged(self) -> bool:
        """Whether the container has interfaces of its own on networks of the runtime."""
        return isinstance(self.mode, Bridge)

    def plugs(self) -> Iterator[FaultLink]:
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
                    yield FaultLink(
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

    def other_containers(self) -> Mapping[str, ContainerInfo]:
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

    def ground(self, facts: ContainerInfo) -> NetnsEditor:
        """The network namespace of another container."""
        return NetnsEditor(NetnsView(facts.name, partial(self.world_host.netns_of, facts.pid)))

    def leave_inside(self, facts: ContainerInfo, name: str = "extra0") -> None:
        """Make an interface that leads nowhere inside a container."""
        self.ground(facts).ensure(rtnetlink.add_veth(name, f"{name}p"))


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


TABLE: Final = nftables.Table("inet", "sabotage")
"""Where the rules of `NetnsEditor.rule` are. It is no violation that it stays: the fault is what
the rules do."""
BRIDGE_TABLE: Final = nftables.Table("bridge", "sabotage")
RESIDUE: Final = ("nft table * sabotage", "nft chain * sabotage *", "nft rule * sabotage *")
"""What of a fault's own tools stays in a host, or goes with a flush, as in `Dialect.residue`."""

_ALL: Final = 3  # ETH_P_ALL
_THERE_OR_NOT: Final = frozenset(
    {errno.EEXIST, errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL}
)

Answer = Callable[[bytes], Iterable[bytes]]
"""What to send back for a frame that came in: no, one or several frames."""


class NetnsEditor:
    """One namespace, by a `NetnsView`, with verbs that change it."""

    def __init__(self, place: NetnsView) -> None:
        self.place = place

    # --- looking

    def links(self) -> dict[str, rtnetlink_dump.Link]:
        """Every interface by name."""
        return self.place.links()

    def link(self, name: str) -> rtnetlink_dump.Link:
        """One interface; `KeyError` when there is none."""
        return self.links()[name]

    def addresses(self, link: str) -> list[IPv4Interface | IPv6Interface]:
        """The addresses of an interface, without link-local ones."""
        return self.place.interfaces(link)

    # --- links, addresses, routes, neighbours

    def rtnl(self, *requests: Request) -> None:
        """Carry out requests of `linux.rtnetlink`, in order; `NetlinkError` names the one refused."""
        with self.place.open() as space, Netlink(space) as netlink:
            netlink.send(list(requests))

    def ensure(self, *requests: Request) -> None:
        """As `rtnl`, but what is there already, or gone already, is no failure."""
        for request in requests:
            try:
                self.rtnl(request)
            except NetlinkError as error:
                if error.errno not in _THERE_OR_NOT:
                    raise

    def set_link(self, link: str, /, **changes: Any) -> None:
        """Change an interface: `up`, `mtu`, `mac`, `name`, `master`, as in `rtnl.set_link`."""
        self.rtnl(rtnetlink.set_link(self.link(link).ifindex, **changes))

    def add_address(self, link: str, address: IPv4Interface | IPv6Interface) -> None:
        """Add an address; one that is there already is no failure."""
        self.ensure(rtnetlink.add_address(self.link(link).ifindex, address))

    def del_address(self, link: str, address: IPv4Interface | IPv6Interface) -> None:
        """Take an address away; one that is gone already is no failure."""
        self.ensure(rtnetlink.del_address(self.link(link).ifindex, address))

    def sysctl(self, key: str, value: str | int) -> None:
        """Set one sysctl by its name with dots, such as `net.ipv4.conf.eth0.proxy_arp`."""
        self.place.tune({key: value})

    # --- firewall

    def firewall(self, *requests: Request) -> None:
        """Carry out requests of `linux.nftables` in one transaction."""
        with self.place.open() as space, nftables.Nft(space) as opened:
            opened.apply(list(requests))

    def rule(
        self,
        hook: nftables.Hook,
        *parts: Iterable[nftables.Expression],
        priority: int = -350,
        nat: bool = False,
        bridge: bool = False,
    ) -> None:
        """Add a rule in a table of the sabotage's own: by default earlier than anybody's.

        `parts` are expressions of `linux.nftables`, matches first. With `nat` it may translate
        addresses, with `bridge` it sees what passes between the ports of a bridge.
        """
        table = BRIDGE_TABLE if bridge else TABLE
        chain = f"{hook}{priority}{'nat' if nat else ''}"
        kind: Any = "nat" if nat else "filter"
        self.firewall(
            nftables.add_table(table),
            nftables.add_chain(table, chain, hook=hook, priority=priority, kind=kind),
            nftables.add_rule(table, chain, *parts, comment="sabotage"),
        )

    def clear_rules(self) -> None:
        """Take away every rule of the sabotage's own."""
        for table in (TABLE, BRIDGE_TABLE):
            self.firewall(nftables.add_table(table), nftables.del_table(table))

    def rules(self) -> list[DecodedRule]:
        """Every rule of everybody, with what it does."""
        with self.place.open() as space, nftables.Nft(space) as opened:
            return entries(opened)

    def take_rules(self, wanted: Callable[[DecodedRule], bool]) -> int:
        """Remove the rules, of whomever, that `wanted` picks; how many there were.

        What belongs to another process's socket cannot be changed and stays.
        """
        taken = 0
        for entry in filter(wanted, self.rules()):
            with contextlib.suppress(NetlinkError):
                self.firewall(nftables.del_rule(entry.table, entry.rule))
                taken += 1
        return taken

    # --- processes and frames

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket inside; keep it in `site.memory` for as long as it shall be open."""
        return self.place.socket(family, kind, protocol)

    def respond(self, link: str, answer: Answer) -> None:
        """From now on answer every frame that comes in by a link, until the link is gone.

        Meant for the host: a socket inside a container keeps its namespace alive.
        """
        opened = self.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        opened.bind((link, _ALL))
        threading.Thread(target=_answer, args=(opened, answer), daemon=True).start()


def _answer(opened: socket.socket, answer: Answer) -> None:
    outgoing = 4  # PACKET_OUTGOING: packet(7)
    with opened:
        while True:
            try:
                frame, (_, _, kind, *_) = opened.recvfrom(1 << 16)
                if kind != outgoing:
                    for reply in answer(frame):
                        opened.send(reply)
            except OSError:  # the link is gone, or goes
                return
