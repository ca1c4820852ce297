"""Network backends of bare runtimes with Linux bridges, as an operator without CNI creates them.

Each bridge has the gateway addresses. Packets that leave the bridge are masqueraded. Networks are
not isolated from each other. host-local, one of CNI's plugins, assigns addresses. With
`LinuxBridge` the runtime itself creates the veth pairs. `VethBridge` creates them for a runtime
that can join an existing netns. All of this runs inside the host.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, ip_address
from typing import Any, Final

from harness.adapters.bare import bundle, cni, networks, store
from harness.adapters.bare.protocol import WiredNetns
from harness.adapters.bare.store import BareRecord
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
"""The default network and its bridge, unless the runtime creates them."""
_FORWARDING: Final = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_SOURCE_NAT: Final = 100


@dataclass(frozen=True, slots=True)
class LinuxBridge:
    """Network backend whose networks are Linux bridges.

    `bridge` is the name of the default network's bridge, and `spec` the spec of that network. If
    another program creates that bridge, `made_by` calls the program. `made_by` is called again
    after a flush of the firewall.
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
        """Return the host-local plugin if it is missing."""
        return cni.missing_plugins("host-local")

    # --- networks

    def begin(self) -> None:
        """Create the default network unless it exists."""
        if DEFAULT_NETWORK in networks.names():
            return
        if self.made_by is None:
            self._make(self.spec)
        else:
            self.made_by()
        networks.save(self.spec)

    def repair(self) -> None:
        """Restore the rules of all networks."""
        for name in networks.names():
            if name == DEFAULT_NETWORK and self.made_by is not None:
                self.made_by()
            else:
                self._rule(networks.load(name))

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        """Create a network with a new bridge."""
        spec = networks.completed(spec, "a Linux bridge does not support")
        self._make(spec)
        networks.save(spec)
        return self.facts(spec.name)

    def facts(self, name: str) -> NetworkInfo:
        """Return the facts about a network."""
        return networks.facts(networks.load(name), self.link(name))

    def remove(self, name: str) -> None:
        """Remove the bridge and the nftables table of a network."""
        networks.load(name)
        table = self._table(name)
        with NetNS.own() as here, Netlink(here) as netlink, nftables.Nft() as tables:
            netlink.send([rtnetlink.del_link(self.link(name))], missing_ok=True)
            tables.apply([nftables.add_table(table), nftables.del_table(table)])
        networks.forget(name)

    def link(self, network: str) -> str:
        """Return the bridge name of a network."""
        default = network == DEFAULT_NETWORK
        return self.bridge if default else networks.bridge_name("hand", network)

    def _make(self, spec: NetworkSpec) -> None:
        name, gateways = self.link(spec.name), networks.gateways(spec)
        with NetNS.own() as here, Netlink(here) as netlink:
            try:
                netlink.send([rtnetlink.add_bridge(name, mac=_mac(name), mtu=spec.mtu, up=False)])
                netns.write_sysctls(here, {f"net.ipv6.conf.{name}.accept_dad": 0})
                index = rtnetlink_dump.link(netlink, name).ifindex
                netlink.send([rtnetlink.set_link(index, up=True)])
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
            tables.apply([*anew, *_rules(table, bridge, networks.gateways(spec))])

    def _table(self, network: str) -> nftables.Table:
        return nftables.Table("inet", self.link(network))

    # --- containers

    def checked(self, spec: ContainerSpec) -> ContainerSpec:
        """Refuse published ports, and refuse an address or MAC in a mode without a bridge."""
        given: dict[str, object] = {"publish": spec.ports}
        if not isinstance(spec.mode, Bridge):
            given |= {"mac": spec.mac, "ip": spec.ip or spec.ip6}
        for option in (name for name, value in given.items() if value):
            raise ProgramRefused(f"{option}: mode {spec.mode} does not support the option")
        return spec

    def wire(self, record: BareRecord) -> WiredNetns:
        """Lease addresses from host-local: the requested addresses or the next free ones.

        The address that was freed last is not reused at once: neighbours still have its old MAC.
        """
        found = []
        for number, item in enumerate(store.attachments(record, self.prefix)):
            ipam = self._ipam(item.network)
            wanted = record.spec if not number else ContainerSpec(record.spec.name)
            one = cni.lease(item, ipam, [ip for ip in (wanted.ip, wanted.ip6) if ip is not None])
            one = replace(one, mac=wanted.mac)
            found.append(one if not number else replace(one, gateway=None, gateway6=None))
        return WiredNetns(tuple(found))

    def unwire(self, record: BareRecord) -> None:
        """Release the addresses; the kernel removes the link together with its netns."""
        for item in store.attachments(record, self.prefix):
            with contextlib.suppress(ProgramRefused):
                cni.release(item, self._ipam(item.network))

    def _ipam(self, network: str) -> Mapping[str, Any]:
        conf = cni.conf(networks.load(network), self.link(network), networks.ADDRESSES)
        ipam: Mapping[str, Any] = conf["plugins"][0]["ipam"]
        return ipam


def _mac(bridge: str) -> str:
    """Return a fixed MAC for a bridge; without one its MAC changes with its ports."""
    digest = hashlib.sha256(bridge.encode()).digest()
    return rtnetlink.mac_text(bytes([2, *digest[:5]]))


def _forwarding(netlink: Netlink, versions: Collection[int]) -> dict[str, str | int]:
    """Return sysctls that turn on forwarding while the host still accepts router advertisements."""
    names = rtnetlink_dump.links_with_ra_routes(netlink) if 6 in versions else []
    listening: dict[str, str | int] = {f"net.ipv6.conf.{name}.accept_ra": 2 for name in names}
    return listening | {_FORWARDING[version]: 1 for version in versions}


def _rules(
    table: nftables.Table, bridge: str, gateways: Sequence[IPv4Interface | IPv6Interface]
) -> Iterator[Request]:
    """Yield the rules that masquerade the subnets and drop other packets that leave the bridge."""
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
    """`LinuxBridge` that also creates netns and veth pairs, for a runtime that joins a netns.

    An operator without CNI does the same with `ip`: creates a network namespace, a veth pair whose
    other end is a bridge port, addresses and default routes. Containers ignore router
    advertisements, because any container on the bridge can send them. Duplicate address detection
    is off, because it takes a second and host-local assigns each address once.
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
        """Release the addresses, and remove the veth pairs even of a netns still in use."""
        ends = [rtnetlink.del_link(_end(record, number)) for number in range(len(record.attached))]
        with NetNS.own() as here, Netlink(here) as netlink:
            netlink.send(ends, missing_ok=True)
        bundle.unmount(store.bundle(record.spec.name), "netns")
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
        yield from configuration(link.ifindex, endpoint)


def configuration(index: int, endpoint: Endpoint) -> Iterator[Request]:
    """Yield the requests that set up a container's link: addresses and default routes."""
    yield rtnetlink.set_link(index, up=True)
    for address in (endpoint.address, endpoint.address6):
        if address is not None:
            yield rtnetlink.add_address(index, address)
    for gateway in (endpoint.gateway, endpoint.gateway6):
        if gateway is not None:
            yield rtnetlink.add_route(None, via=ip_address(gateway))


def _end(record: BareRecord, number: int) -> str:
    """Return the name of the host's end of a veth pair; every container gets a new name."""
    digest = hashlib.sha256(f"{record.spec.name}-{record.serial}".encode()).hexdigest()
    return f"veth{digest[:8]}-{number}"
