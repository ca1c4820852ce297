"""The target of a fault at one moment: the host, a network or a container of the runtime."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from harness.adapters.protocol import Adapter, ContainerInfo, NetworkInfo, RuntimeRefused
from harness.faults.fault import Moment
from harness.faults.nft_rules import DecodedRule, decode_rules
from harness.model.plan import Bridge, ContainerSpec, Mode
from harness.model.topology import Address, Interface, Network
from harness.testbench.netns_view import NetnsView, fixed, iproute
from harness.world.host import HostMachine
from linux import nftables, rtnetlink, rtnetlink_dump
from linux.netlink import NetlinkError, Request

_LOG: Final = "/run/netmodes/fault.log"


class FaultLink(NamedTuple):
    """Veth pair that connects a container to a network of the runtime."""

    network: NetworkInfo
    bridge: str
    """The network's interface in the host."""
    inside: str
    """The container's interface, such as `eth0`."""
    outside: str
    """The host's end of the pair, a port of the bridge."""
    addresses: tuple[Interface, ...]
    """The addresses of the container's interface, without link-local ones."""
    gateways: tuple[Interface, ...]
    """The host's addresses on the network, which are the gateways of its containers."""


@dataclass(frozen=True, slots=True)
class FaultContext:
    """The context in which a fault is called.

    `memory` is kept from one call of the fault to the next in the same host. `runtime` is the
    healthy adapter. `spec` is the specification of the container that the moment concerns, and
    `facts` the runtime's report about the container. `network` is the runtime's report about the
    network that the moment concerns. Each of the three is `None` if it does not exist.
    """

    moment: str
    world_host: HostMachine
    runtime: Adapter
    memory: dict[str, Any]
    name: str = ""
    """The name of the container, or of the network if the moment concerns a network."""
    spec: ContainerSpec | None = None
    facts: ContainerInfo | None = None
    network: NetworkInfo | None = None

    # --- namespaces and networks

    @property
    def host(self) -> NetnsEditor:
        """The host's network namespace."""
        return NetnsEditor(fixed("host", self.world_host.netns))

    @property
    def inside(self) -> NetnsEditor:
        """Network namespace of the container; in mode host the host's."""
        assert self.facts is not None, f"no container exists at the moment {self.moment}"
        return NetnsEditor(NetnsView(self.name, partial(self.world_host.netns_of, self.facts.pid)))

    @property
    def mode(self) -> Mode | None:
        """The requested net mode of the container."""
        return self.spec.mode if self.spec else None

    @property
    def is_bridged(self) -> bool:
        """True if the requested mode is a bridge network."""
        return isinstance(self.mode, Bridge)

    def plugs(self) -> Iterator[FaultLink]:
        """Yield a link for each network of the running container; none in modes without any."""
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

    def new_plugs(self) -> Iterator[FaultLink]:
        """Yield the link to the newly connected network; at other moments all of `plugs()`."""
        for plug in self.plugs():
            network = self.network.name if self.network else ""
            if self.moment != Moment.CONNECTED or plug.network.name == network:
                yield plug

    @property
    def specs(self) -> Mapping[str, ContainerSpec]:
        """The specifications of all containers that were created so far, by name."""
        found: Mapping[str, ContainerSpec] = self.memory["specs"]
        return found

    @property
    def is_internal(self) -> bool:
        """True if the network that the moment concerns was created as internal."""
        return self.network is not None and self.network.name in self.memory.get("internal", ())

    def bridges(self) -> list[str]:
        """Return the bridges of all networks created so far, the default network's first."""
        names = ["bridge", *self.memory["networks"]]
        found = []
        for name in names:
            try:
                facts = self.runtime.network_facts(name)
            except RuntimeRefused:  # the network has been removed
                continue
            if facts.interface:
                found.append(facts.interface)
        return found

    def uplink(self) -> str:
        """Return the host's interface with the default route."""
        links = {link.ifindex: name for name, link in self.host.links().items()}
        return next(
            links[route.oif]
            for route in self.host.place.routes()
            if route.destination is None and route.oif
        )

    def resolver(self) -> Address:
        """Return the first name server of the host's resolv.conf."""
        for line in self.world_host.call(_read, "/etc/resolv.conf").splitlines():
            if line.startswith("nameserver"):
                return ip_address(line.split()[1])
        raise LookupError("the host's resolv.conf names no resolver")

    # --- files and processes

    def path(self, inner: str, container: ContainerInfo | None = None) -> str:
        """Return the path of a file of the container, below /proc/PID/root."""
        facts = container or self.facts
        assert facts is not None, f"no container exists at the moment {self.moment}"
        return f"{self.world_host.proc}/{facts.pid}/root{inner}"

    def read(self, inner: str) -> str:
        """Return the text of a file of the running container."""
        with open(self.path(inner), encoding="utf-8") as file:
            return file.read()

    def write(self, inner: str, text: str) -> None:
        """Overwrite a file of the running container without replacing it."""
        with open(self.path(inner), "w", encoding="utf-8") as file:
            file.write(text)

    def call(self, function: Any, *args: Any) -> Any:
        """Call a module-level function in a process of the host."""
        return self.world_host.call(function, *args)

    def spawn(self, *argv: str) -> int:
        """Start a background process in the host and return its pid in the host."""
        return self.world_host.spawn(argv, log=_LOG)

    def other_containers(self) -> Mapping[str, ContainerInfo]:
        """Return the other running containers, by name."""
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

    def netns_of(self, facts: ContainerInfo) -> NetnsEditor:
        """Return the network namespace of another container."""
        return NetnsEditor(NetnsView(facts.name, partial(self.world_host.netns_of, facts.pid)))

    def leave_inside(self, facts: ContainerInfo, name: str = "extra0") -> None:
        """Add an unconnected veth pair to the namespace of a container."""
        peer = f"{name}p"
        self.netns_of(facts).ensure("link", "add", ifname=name, kind="veth", peer=peer, state="up")


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


TABLE: Final = nftables.Table("inet", "sabotage")
"""Table of the rules that `NetnsEditor.rule` adds.

The table may stay in the host: the fault is what its rules do, not the table.
"""
BRIDGE_TABLE: Final = nftables.Table("bridge", "sabotage")
RESIDUE: Final = ("nft table * sabotage", "nft chain * sabotage *", "nft rule * sabotage *")
"""Patterns, as in `Dialect.residue`, of the tables that a fault leaves in the host."""

_ALL: Final = 3  # ETH_P_ALL
_THERE_OR_NOT: Final = frozenset(
    {errno.EEXIST, errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL}
)
_LINK_KEYS: Final = {"mac": "address", "name": "ifname"}

Answer = Callable[[bytes], Iterable[bytes]]
"""Function that returns the reply frames to an incoming frame."""


class NetnsEditor:
    """Network namespace (`NetnsView`) with methods that change the namespace."""

    def __init__(self, place: NetnsView) -> None:
        self.place = place

    # --- queries

    def links(self) -> dict[str, rtnetlink_dump.Link]:
        """Return all interfaces by name."""
        return self.place.links()

    def link(self, name: str) -> rtnetlink_dump.Link:
        """Return an interface; raise `KeyError` if there is none."""
        return self.links()[name]

    def addresses(self, link: str) -> list[Interface]:
        """Return the addresses of an interface, except link-local ones."""
        return self.place.interfaces(link)

    # --- links, addresses, routes, neighbours

    def ip(self, what: str, command: str, /, *arguments: Any, **named: Any) -> None:
        """Call a method of pyroute2's `IPRoute`: `ip("link", "set", ifname="lo", state="down")`.

        Addresses and networks may be objects of `ipaddress`. Raises `OSError`; the message names
        the request.
        """
        named = {
            key: str(it) if isinstance(it, Address | Network) else it for key, it in named.items()
        }
        try:
            with self.place.open() as space, iproute(space) as opened:
                getattr(opened, what)(command, *arguments, **named)
        except OSError as error:
            request = f"{what} {command} {' '.join(f'{key}={it}' for key, it in named.items())}"
            raise OSError(error.errno, f"{request}: {error.strerror}") from error

    def ensure(self, what: str, command: str, /, *arguments: Any, **named: Any) -> None:
        """Call `ip`, and ignore an object that already exists or does not exist any more."""
        try:
            self.ip(what, command, *arguments, **named)
        except OSError as error:
            if error.errno not in _THERE_OR_NOT:
                raise

    def set_link(self, link: str, /, *, up: bool | None = None, **changes: Any) -> None:
        """Change `up`, `mtu`, `mac`, `name` or `master` of an interface."""
        changes = {_LINK_KEYS.get(key, key): value for key, value in changes.items()}
        if up is not None:
            changes["state"] = "up" if up else "down"
        self.ip("link", "set", index=self.link(link).ifindex, **changes)

    def add_address(self, link: str, address: Interface) -> None:
        """Add an address unless it exists."""
        flags = rtnetlink.IFA_F_NODAD if address.version == 6 else 0
        self._address("add", link, address, flags=flags)

    def del_address(self, link: str, address: Interface) -> None:
        """Remove an address if it exists."""
        self._address("del", link, address)

    def _address(self, command: str, link: str, address: Interface, **named: Any) -> None:
        index, prefix = self.link(link).ifindex, address.network.prefixlen
        self.ensure("addr", command, index=index, address=address.ip, prefixlen=prefix, **named)

    def sysctl(self, key: str, value: str | int) -> None:
        """Set a sysctl by its dotted name, such as `net.ipv4.conf.eth0.proxy_arp`."""
        self.place.tune({key: value})

    # --- firewall

    def firewall(self, *requests: Request) -> None:
        """Send requests of `linux.nftables` in one transaction."""
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
        """Add a rule to the fault's own table, which by default comes before other tables.

        `parts` are expressions of `linux.nftables`, matches first. With `nat` the chain may
        translate addresses. With `bridge` the table is of the bridge family, and the rule gets
        frames between bridge ports.
        """
        table = BRIDGE_TABLE if bridge else TABLE
        chain = f"{hook}{priority}{'nat' if nat else ''}"
        kind: Any = "nat" if nat else "filter"
        self.firewall(
            nftables.add_table(table),
            nftables.add_chain(table, chain, hook=hook, priority=priority, kind=kind),
            nftables.add_rule(table, chain, *parts, comment="sabotage"),
        )

    def rules(self) -> list[DecodedRule]:
        """Return all nftables rules of the namespace, decoded."""
        with self.place.open() as space, nftables.Nft(space) as opened:
            return decode_rules(opened)

    def take_rules(self, wanted: Callable[[DecodedRule], bool]) -> int:
        """Remove the rules that `wanted` selects, in any table, and return their number.

        Rules of a table that another process owns through its socket stay.
        """
        taken = 0
        for entry in filter(wanted, self.rules()):
            with contextlib.suppress(NetlinkError):
                self.firewall(nftables.del_rule(entry.table, entry.rule))
                taken += 1
        return taken

    # --- processes and frames

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a socket in the namespace; store it in `memory` of the context to keep it open."""
        return self.place.socket(family, kind, protocol)

    def respond(self, link: str, answer: Answer) -> None:
        """Reply to the frames that arrive on an interface until the interface is gone.

        Use this method in the host only: a socket in a container's namespace keeps the namespace
        alive.
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
            except OSError:  # the interface is gone
                return
