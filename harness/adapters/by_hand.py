"""Networks as an operator makes them where a runtime has none: bridges, and who has which address.

A bridge with addresses of its own, whose subnets are masqueraded when they leave it; nothing
keeps one from another. The runtime plugs its containers into it by itself: what it is told are
the endpoints. All of it runs inside the host.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any, Final

from harness.adapters import cni, records, subnets
from harness.adapters.bare import Wired
from harness.adapters.program import Refused
from harness.adapters.protocol import NetworkFacts
from harness.adapters.records import HOME, Record
from harness.model import DEFAULT_NETWORK, Bridge, ContainerSpec, NetworkSpec
from linux import netstate, nft, rtnl, sysctl
from linux.netlink import Netlink, Request
from linux.netns import NetNS

BRIDGE: Final = "hand0"
DEFAULT: Final = NetworkSpec(
    DEFAULT_NETWORK, subnet=IPv4Network("10.84.0.0/24"), gateway=IPv4Address("10.84.0.1")
)
"""The default network, and its bridge, where nobody else makes one."""
_FORWARDING: Final = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_SOURCE_NAT: Final = 100


@dataclass(frozen=True, slots=True)
class ByHand:
    """Bridges, the default one included: `bridge` is its name, `spec` what it has.

    `made_by` makes that one, where it is somebody else's affair, and again after a flush of
    the firewall.
    """

    bridge: str
    spec: NetworkSpec
    made_by: Callable[[], None] | None = None
    prefix: str = ""

    @property
    def packages(self) -> tuple[str, ...]:
        """Who counts addresses is one of CNI's plugins."""
        return ("containernetworking-plugins",)

    def missing(self) -> list[str]:
        """That plugin, where it is not there."""
        return cni.lacking("host-local")

    # --- networks

    def begin(self) -> None:
        """Make the default network, where it is not there."""
        if self._path(DEFAULT_NETWORK).exists():
            return
        if self.made_by is None:
            self._make(self.spec)
        else:
            self.made_by()
        self._keep(self.spec)

    def repair(self) -> None:
        """Have the rules of all of them again."""
        for name in self.names():
            if name == DEFAULT_NETWORK and self.made_by is not None:
                self.made_by()
            else:
                self._rule(self._spec(name))

    def create(self, spec: NetworkSpec) -> NetworkFacts:
        """A bridge more."""
        for name, value in (("internal", spec.internal), ("icc=false", not spec.icc)):
            if value:
                raise Refused(f"a bridge alone is not {name}")
        if self._path(spec.name).exists():
            raise Refused(f"network {spec.name} is there already")
        used = (item.network for name in self.names() for item in self.facts(name).gateways)
        spec = subnets.settled(spec, [*used, *subnets.of_host()])
        self._make(spec)
        self._keep(spec)
        return self.facts(spec.name)

    def facts(self, name: str) -> NetworkFacts:
        """What there is to tell about a network."""
        return NetworkFacts(name, name, self.link(name), _gateways(self._spec(name)))

    def names(self) -> list[str]:
        """Every network's name."""
        return sorted(path.stem for path in _home().glob("*.spec"))

    def remove(self, name: str) -> None:
        """The bridge, and its table."""
        self._spec(name)
        with NetNS.own() as here, Netlink(here) as netlink, nft.Nft() as table:
            netlink.send([rtnl.del_link(self.link(name))], missing_ok=True)
            table.apply([nft.add_table(self._table(name)), nft.del_table(self._table(name))])
        for path in _home().glob(f"{name}.*"):
            path.unlink()

    def link(self, network: str) -> str:
        """The bridge of a network; a name has more characters than a link may have."""
        if network == DEFAULT_NETWORK:
            return self.bridge
        return f"hand-{hashlib.sha256(network.encode()).hexdigest()[:9]}"

    def _make(self, spec: NetworkSpec) -> None:
        name, gateways = self.link(spec.name), _gateways(spec)
        with NetNS.own() as here, Netlink(here) as netlink:
            try:
                netlink.send([rtnl.add_bridge(name, mac=_mac(name), mtu=spec.mtu, up=False)])
                sysctl.write(here, {f"net.ipv6.conf.{name}.accept_dad": 0})
                netlink.send([rtnl.set_link(netstate.link(netlink, name).ifindex, up=True)])
                index = netstate.link(netlink, name).ifindex
                netlink.send([rtnl.add_address(index, item) for item in gateways])
                sysctl.write(here, _forwarding(netlink, {item.version for item in gateways}))
                self._rule(spec)
            except OSError as error:
                with contextlib.suppress(OSError):
                    netlink.send([rtnl.del_link(name)], missing_ok=True)
                raise Refused(f"network {spec.name}: {error}") from error

    def _rule(self, spec: NetworkSpec) -> None:
        table, bridge = self._table(spec.name), self.link(spec.name)
        with nft.Nft() as tables:
            anew = [nft.add_table(table), nft.del_table(table)]
            tables.apply([*anew, *_rules(table, bridge, _gateways(spec))])

    def _table(self, network: str) -> nft.Table:
        return nft.Table("inet", self.link(network))

    def _spec(self, name: str) -> NetworkSpec:
        try:
            found: NetworkSpec = pickle.loads(self._path(name).read_bytes())  # noqa: S301 # our own
        except FileNotFoundError:
            raise Refused(f"there is no network {name}") from None
        return found

    def _keep(self, spec: NetworkSpec) -> None:
        _home().mkdir(parents=True, exist_ok=True)
        self._path(spec.name).write_bytes(pickle.dumps(spec))

    def _path(self, name: str) -> Path:
        return _home() / f"{name}.spec"

    # --- containers

    def asked(self, spec: ContainerSpec) -> ContainerSpec:
        """Addresses and MACs are those of a link of its own; ports are nobody's."""
        given: dict[str, object] = {"publish": spec.ports}
        if not isinstance(spec.mode, Bridge):
            given |= {"mac": spec.mac, "ip": spec.ip or spec.ip6}
        for option in (name for name, value in given.items() if value):
            raise Refused(f"{option}: there is no such option in mode {spec.mode}")
        return spec

    def wire(self, record: Record) -> Wired:
        """Have host-local give it addresses: those that are asked for, or the next that are free.

        Not the last one that was freed: its neighbours know it by another MAC for a while.
        """
        found = []
        for number, item in enumerate(records.attachments(record, self.prefix)):
            ipam = self._ipam(item.network)
            asked = record.spec if not number else ContainerSpec(record.spec.name)
            one = cni.lease(item, ipam, [ip for ip in (asked.ip, asked.ip6) if ip is not None])
            one = replace(one, mac=asked.mac)
            found.append(one if not number else replace(one, gateway=None, gateway6=None))
        return Wired(tuple(found))

    def unwire(self, record: Record) -> None:
        """Addresses are given back; the link goes with its namespace."""
        for item in records.attachments(record, self.prefix):
            with contextlib.suppress(Refused):
                cni.release(item, self._ipam(item.network))

    def _ipam(self, network: str) -> Mapping[str, Any]:
        conf = cni.conf(self._spec(network), self.link(network), _home() / "addresses")
        ipam: Mapping[str, Any] = conf["plugins"][0]["ipam"]
        return ipam


def _mac(bridge: str) -> str:
    """A bridge's own MAC: without one it has its ports', and another one with each of them."""
    digest = hashlib.sha256(bridge.encode()).digest()
    return rtnl.mac_text(bytes([2, *digest[:5]]))


def _home() -> Path:
    return HOME / "networks"


def _gateways(spec: NetworkSpec) -> tuple[IPv4Interface | IPv6Interface, ...]:
    pairs = ((spec.gateway, spec.subnet), (spec.gateway6, spec.subnet6))
    return tuple(ip_interface(f"{at}/{net.prefixlen}") for at, net in pairs if at and net)


def _forwarding(netlink: Netlink, versions: Collection[int]) -> dict[str, str | int]:
    """What has the host forward, and listen to routers as before, which it would cease to do."""
    names = netstate.advertised(netlink) if 6 in versions else []
    listening: dict[str, str | int] = {f"net.ipv6.conf.{name}.accept_ra": 2 for name in names}
    return listening | {_FORWARDING[version]: 1 for version in versions}


def _rules(
    table: nft.Table, bridge: str, gateways: Sequence[IPv4Interface | IPv6Interface]
) -> Iterator[Request]:
    """What leaves the bridge has the host's address, or does not leave."""
    inside, outside = nft.iifname(bridge), nft.oifname(bridge, is_not=True)
    yield nft.add_table(table)
    yield nft.add_chain(table, "leaving", hook="forward")
    yield nft.add_chain(table, "left", hook="postrouting", priority=_SOURCE_NAT, kind="nat")
    drop = nft.verdict("drop")
    yield nft.add_rule(table, "leaving", inside, outside, nft.ct_state("invalid"), drop)
    for item in gateways:
        others = nft.saddr(item.network, is_not=True)
        yield nft.add_rule(table, "leaving", inside, outside, others, drop)
        own = nft.saddr(item.network)
        yield nft.add_rule(table, "left", own, outside, nft.masquerade())
