"""Networks of bare runtimes by Linux bridges, as an operator makes them without CNI.

Each bridge has gateway addresses, and its subnets are masqueraded when packets leave the
bridge; networks are not isolated from each other. host-local, one of CNI's plugins, assigns
addresses. With `LinuxBridge` the runtime itself makes the veth pairs; `VethBridge` makes them
for a runtime that joins any netns. All of it runs inside the host.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from pathlib import Path
from typing import Any, Final, TypeVar

from harness.adapters.bare import bundle, cni, store
from harness.adapters.bare.protocol import WiredNetns
from harness.adapters.bare.store import HOME, BareRecord
from harness.adapters.protocol import Endpoint, NetworkInfo
from harness.adapters.support.program import ProgramRefused
from harness.model.plan import DEFAULT_NETWORK, Bridge, ContainerSpec, NetworkSpec
from linux import netns, nftables, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, Request
from linux.netns import NetNS
from linux.readiness import await_ready

BRIDGE: Final = "hand0"
DEFAULT: Final = NetworkSpec(
    DEFAULT_NETWORK, subnet=IPv4Network("10.84.0.0/24"), gateway=IPv4Address("10.84.0.1")
)
"""The default network and its bridge, unless the runtime makes them."""
_FORWARDING: Final = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_SOURCE_NAT: Final = 100


@dataclass(frozen=True, slots=True)
class LinuxBridge:
    """Networks as Linux bridges: `bridge` and `spec` are the default one's name and spec.

    If the default bridge is not ours to make, `made_by` makes it, again after a flush of the
    firewall.
    """

    bridge: str
    spec: NetworkSpec
    made_by: Callable[[], None] | None = None
    prefix: str = ""

    @property
    def packages(self) -> tuple[str, ...]:
        """The package of CNI's host-local plugin, which assigns addresses."""
        return ("containernetworking-plugins",)

    def missing(self) -> list[str]:
        """Return the plugin if it is missing."""
        return cni.missing_plugins("host-local")

    # --- networks

    def begin(self) -> None:
        """Create the default network unless it exists."""
        if self._path(DEFAULT_NETWORK).exists():
            return
        if self.made_by is None:
            self._make(self.spec)
        else:
            self.made_by()
        self._keep(self.spec)

    def repair(self) -> None:
        """Restore the rules of all networks."""
        for name in self.names():
            if name == DEFAULT_NETWORK and self.made_by is not None:
                self.made_by()
            else:
                self._rule(self._spec(name))

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        """Create a network: another bridge."""
        for name, value in (("internal", spec.internal), ("icc=false", not spec.icc)):
            if value:
                raise ProgramRefused(f"a bridge alone is not {name}")
        if self._path(spec.name).exists():
            raise ProgramRefused(f"network {spec.name} is there already")
        used = (item.network for name in self.names() for item in self.facts(name).gateways)
        spec = with_subnets(spec, [*used, *used_subnets()])
        self._make(spec)
        self._keep(spec)
        return self.facts(spec.name)

    def facts(self, name: str) -> NetworkInfo:
        """Return the facts about a network."""
        return NetworkInfo(name, name, self.link(name), _gateways(self._spec(name)))

    def names(self) -> list[str]:
        """Return the names of all networks."""
        return sorted(path.stem for path in _home().glob("*.spec"))

    def remove(self, name: str) -> None:
        """Remove the bridge and its nftables table."""
        self._spec(name)
        with NetNS.own() as here, Netlink(here) as netlink, nftables.Nft() as table:
            netlink.send([rtnetlink.del_link(self.link(name))], missing_ok=True)
            table.apply(
                [nftables.add_table(self._table(name)), nftables.del_table(self._table(name))]
            )
        for path in _home().glob(f"{name}.*"):
            path.unlink()

    def link(self, network: str) -> str:
        """Return the bridge name of a network: a hash, as link names have at most 15 characters."""
        if network == DEFAULT_NETWORK:
            return self.bridge
        return f"hand-{hashlib.sha256(network.encode()).hexdigest()[:9]}"

    def _make(self, spec: NetworkSpec) -> None:
        name, gateways = self.link(spec.name), _gateways(spec)
        with NetNS.own() as here, Netlink(here) as netlink:
            try:
                netlink.send([rtnetlink.add_bridge(name, mac=_mac(name), mtu=spec.mtu, up=False)])
                netns.write_sysctls(here, {f"net.ipv6.conf.{name}.accept_dad": 0})
                netlink.send(
                    [rtnetlink.set_link(rtnetlink_dump.link(netlink, name).ifindex, up=True)]
                )
                index = rtnetlink_dump.link(netlink, name).ifindex
                netlink.send([rtnetlink.add_address(index, item) for item in gateways])
                netns.write_sysctls(here, _forwarding(netlink, {item.version for item in gateways}))
                self._rule(spec)
            except OSError as error:
                with contextlib.suppress(OSError):
                    netlink.send([rtnetlink.del_link(name)], missing_ok=True)
                raise ProgramRefused(f"network {spec.name}: {error}") from error

    def _rule(self, spec: NetworkSpec) -> None:
        table, bridge = self._table(spec.name), self.link(spec.name)
        with nftables.Nft() as tables:
            anew = [nftables.add_table(table), nftables.del_table(table)]
            tables.apply([*anew, *_rules(table, bridge, _gateways(spec))])

    def _table(self, network: str) -> nftables.Table:
        return nftables.Table("inet", self.link(network))

    def _spec(self, name: str) -> NetworkSpec:
        try:
            found: NetworkSpec = pickle.loads(self._path(name).read_bytes())  # noqa: S301 # our own
        except FileNotFoundError:
            raise ProgramRefused(f"there is no network {name}") from None
        return found

    def _keep(self, spec: NetworkSpec) -> None:
        _home().mkdir(parents=True, exist_ok=True)
        self._path(spec.name).write_bytes(pickle.dumps(spec))

    def _path(self, name: str) -> Path:
        return _home() / f"{name}.spec"

    # --- containers

    def checked(self, spec: ContainerSpec) -> ContainerSpec:
        """Refuse ports, and addresses and MACs in modes without a bridge."""
        given: dict[str, object] = {"publish": spec.ports}
        if not isinstance(spec.mode, Bridge):
            given |= {"mac": spec.mac, "ip": spec.ip or spec.ip6}
        for option in (name for name, value in given.items() if value):
            raise ProgramRefused(f"{option}: there is no such option in mode {spec.mode}")
        return spec

    def wire(self, record: BareRecord) -> WiredNetns:
        """Lease addresses from host-local: the requested ones or the next free ones.

        The last freed address is not reused at once: neighbours still have its old MAC.
        """
        found = []
        for number, item in enumerate(store.attachments(record, self.prefix)):
            ipam = self._ipam(item.network)
            asked = record.spec if not number else ContainerSpec(record.spec.name)
            one = cni.lease(item, ipam, [ip for ip in (asked.ip, asked.ip6) if ip is not None])
            one = replace(one, mac=asked.mac)
            found.append(one if not number else replace(one, gateway=None, gateway6=None))
        return WiredNetns(tuple(found))

    def unwire(self, record: BareRecord) -> None:
        """Release the addresses; the link goes with its netns."""
        for item in store.attachments(record, self.prefix):
            with contextlib.suppress(ProgramRefused):
                cni.release(item, self._ipam(item.network))

    def _ipam(self, network: str) -> Mapping[str, Any]:
        conf = cni.conf(self._spec(network), self.link(network), _home() / "addresses")
        ipam: Mapping[str, Any] = conf["plugins"][0]["ipam"]
        return ipam


def _mac(bridge: str) -> str:
    """Return a fixed MAC for a bridge, which would otherwise take that of a port and change."""
    digest = hashlib.sha256(bridge.encode()).digest()
    return rtnetlink.mac_text(bytes([2, *digest[:5]]))


def _home() -> Path:
    return HOME / "networks"


def _gateways(spec: NetworkSpec) -> tuple[IPv4Interface | IPv6Interface, ...]:
    pairs = ((spec.gateway, spec.subnet), (spec.gateway6, spec.subnet6))
    return tuple(ip_interface(f"{at}/{net.prefixlen}") for at, net in pairs if at and net)


def _forwarding(netlink: Netlink, versions: Collection[int]) -> dict[str, str | int]:
    """Return sysctls that turn on forwarding and keep accepting router advertisements."""
    names = rtnetlink_dump.links_with_ra_routes(netlink) if 6 in versions else []
    listening: dict[str, str | int] = {f"net.ipv6.conf.{name}.accept_ra": 2 for name in names}
    return listening | {_FORWARDING[version]: 1 for version in versions}


def _rules(
    table: nftables.Table, bridge: str, gateways: Sequence[IPv4Interface | IPv6Interface]
) -> Iterator[Request]:
    """Yield the rules that masquerade the subnets and drop all else that leaves the bridge."""
    inside, outside = nftables.iifname(bridge), nftables.oifname(bridge, is_not=True)
    yield nftables.add_table(table)
    yield nftables.add_chain(table, "leaving", hook="forward")
    yield nftables.add_chain(table, "left", hook="postrouting", priority=_SOURCE_NAT, kind="nat")
    drop = nftables.verdict("drop")
    yield nftables.add_rule(table, "leaving", inside, outside, nftables.ct_state("invalid"), drop)
    for item in gateways:
        others = nftables.saddr(item.network, is_not=True)
        yield nftables.add_rule(table, "leaving", inside, outside, others, drop)
        own = nftables.saddr(item.network)
        yield nftables.add_rule(table, "left", own, outside, nftables.masquerade())


# --- containers of runtimes that join a netns ---------------------------------------

_OFF: Final = ("accept_ra", "accept_dad")


@dataclass(frozen=True, slots=True)
class VethBridge(LinuxBridge):
    """Bridges of `LinuxBridge`, with a netns and veth pairs for a runtime that joins any netns.

    This is what an operator without CNI does with `ip`: a network namespace, a veth pair whose
    other end is a bridge port, addresses and default routes. Router advertisements are ignored,
    because any container on the bridge can send them. Duplicate address detection is off:
    host-local gives each address once, and the detection takes a second.
    """

    def wire(self, record: BareRecord) -> WiredNetns:
        """Make a netns with `lo` up and an interface on each network."""
        leased = LinuxBridge.wire(self, record).endpoints
        bridges = [self.link(endpoint.network) for endpoint in leased]
        with NetNS.own() as here, NetNS.new() as space:
            path = bundle.hold_netns(store.bundle(record.spec.name), space.fd)
            with Netlink(here) as outside:
                found = [rtnetlink_dump.link(outside, bridge) for bridge in bridges]
                outside.send(
                    request
                    for number, (bridge, endpoint) in enumerate(zip(found, leased, strict=True))
                    for request in _pair(_end(record, number), number, bridge, space, endpoint)
                )
            with Netlink(space) as inside:
                links = [
                    rtnetlink_dump.link(inside, f"eth{number}") for number in range(len(leased))
                ]
                for link in links:
                    netns.write_sysctls(
                        space, {f"net.ipv6.conf.{link.name}.{key}": 0 for key in _OFF}
                    )
                inside.send(_configuration(links, leased))
            await_ready([space, here])
        own = zip(leased, links, strict=True)
        return WiredNetns(tuple(replace(item, mac=link.mac) for item, link in own), str(path))

    def unwire(self, record: BareRecord) -> None:
        """Remove the veth pairs, even if a joiner is still in the netns; then netns and leases."""
        ends = [rtnetlink.del_link(_end(record, number)) for number in range(len(record.attached))]
        with NetNS.own() as here, Netlink(here) as netlink:
            netlink.send(ends, missing_ok=True)
        bundle.release_netns(store.bundle(record.spec.name))
        LinuxBridge.unwire(self, record)


def _pair(
    end: str, number: int, bridge: rtnetlink_dump.Link, space: NetNS, endpoint: Endpoint
) -> Iterator[Request]:
    yield rtnetlink.add_veth(
        end,
        f"eth{number}",
        master=bridge.ifindex,
        mtu=bridge.mtu,
        peer_netns=space.fd,
        peer_mac=endpoint.mac,
    )
    yield rtnetlink.no_link_local(end)


def _configuration(
    links: Sequence[rtnetlink_dump.Link], own: Sequence[Endpoint]
) -> Iterator[Request]:
    yield rtnetlink.set_link(rtnetlink.LO, up=True)
    for link, endpoint in zip(links, own, strict=True):
        yield rtnetlink.set_link(link.ifindex, up=True)
        for address in (endpoint.address, endpoint.address6):
            if address is not None:
                yield rtnetlink.add_address(link.ifindex, address)
        for gateway in (endpoint.gateway, endpoint.gateway6):
            if gateway is not None:
                yield rtnetlink.add_route(None, via=ip_address(gateway))


def _end(record: BareRecord, number: int) -> str:
    """Return the name of the host's end, which no other container ever has."""
    digest = hashlib.sha256(f"{record.spec.name}-{record.serial}".encode()).hexdigest()
    return f"veth{digest[:8]}-{number}"


# --- subnets ---------------------------------------------------------------------------

POOL: Final = IPv4Network("10.86.0.0/15")
POOL6: Final = IPv6Network("fd00:86::/48")

Subnet = IPv4Network | IPv6Network
T = TypeVar("T", IPv4Network, IPv6Network)
A = TypeVar("A", IPv4Address, IPv6Address)


def used_subnets() -> Iterator[Subnet]:
    """Yield the subnets that the host routes or has an address in."""
    with NetNS.own() as here, Netlink(here) as netlink:
        held = [item.address.network for item in rtnetlink_dump.addresses(netlink)]
        routed = [item.destination for item in rtnetlink_dump.routes(netlink)]
    for network in (*held, *routed):
        if network is not None and network.prefixlen and not _of_the_links(network):
            yield network


def with_subnets(spec: NetworkSpec, taken: Iterable[Subnet]) -> NetworkSpec:
    """Return a network with subnets and gateways chosen or checked.

    Raises `ProgramRefused` for values that are invalid or overlap others.
    """
    used = list(taken)
    four = _subnet4(spec.subnet)
    six = _subnet6(spec.subnet6)
    for subnet in (four, six):
        for other in used if subnet else ():
            if subnet is not None and _overlap(subnet, other):
                raise ProgramRefused(f"subnet {subnet} overlaps {other}, which is in use")
    if four is None:
        four = next((item for item in POOL.subnets(new_prefix=24) if not _any(item, used)), None)
        if four is None:
            raise ProgramRefused(f"no subnet of {POOL} is free")
    if six is None and spec.ipv6:
        six = next(item for item in POOL6.subnets(new_prefix=64) if not _any(item, used))
    gateway = _gateway4(spec.gateway, four)
    gateway6 = None if six is None else _gateway6(spec.gateway6, six)
    part = spec.ip_range
    if part is not None and not IPv4Network(str(part)).subnet_of(four):
        raise ProgramRefused(f"ip range {part} is not within subnet {four}")
    return replace(
        spec, subnet=four, gateway=gateway, subnet6=six, gateway6=gateway6, ipv6=six is not None
    )


def _any(subnet: Subnet, used: list[Subnet]) -> bool:
    return any(_overlap(subnet, other) for other in used)


def _overlap(one: Subnet, other: Subnet) -> bool:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.overlaps(other)
    if isinstance(one, IPv6Network) and isinstance(other, IPv6Network):
        return one.overlaps(other)
    return False


def _subnet4(asked: object) -> IPv4Network | None:
    return None if asked is None else _usable(IPv4Network, str(asked), 30)


def _subnet6(asked: object) -> IPv6Network | None:
    return None if asked is None else _usable(IPv6Network, str(asked), 126)


def _usable(kind: type[T], asked: str, longest: int) -> T:
    try:
        found = kind(asked)
    except ValueError as error:
        raise ProgramRefused(f"subnet {asked}: {error}") from None
    if found.prefixlen > longest or _of_the_links(found):
        raise ProgramRefused(f"subnet {asked} has no room for containers")
    return found


def _gateway4(asked: object, subnet: IPv4Network) -> IPv4Address:
    return _gateway(IPv4Address, asked, subnet, (subnet[0], subnet[-1]))


def _gateway6(asked: object, subnet: IPv6Network) -> IPv6Address:
    return _gateway(IPv6Address, asked, subnet, (subnet[0],))


def _gateway(
    kind: type[A], asked: object, subnet: IPv4Network | IPv6Network, reserved: tuple[A, ...]
) -> A:
    """Return the requested gateway, or else the first address of the subnet."""
    if asked is None:
        return kind(int(subnet[1]))
    try:
        found = kind(str(asked))
    except ValueError as error:
        raise ProgramRefused(f"gateway {asked}: {error}") from None
    if found not in subnet or found in reserved:
        raise ProgramRefused(f"gateway {asked} is no address of subnet {subnet}")
    return found


def _of_the_links(network: Subnet) -> bool:
    return network.is_loopback or network.is_link_local or network.is_multicast
