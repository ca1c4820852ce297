"""Networks for bare runtimes: a directory of CNI confs, and which subnets are free.

CNI leaves it to whoever writes a conf that subnets do not overlap, and takes no bridge
away with the last container. So this part is the harness's own, as it would be an
engine's. All of it runs inside the host.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_interface,
)
from pathlib import Path
from typing import Any, Final, TypeVar

from harness.adapters import cni
from harness.adapters.program import Refused
from harness.adapters.protocol import NetworkFacts
from harness.model import DEFAULT_NETWORK, NetworkSpec
from linux import netstate, rtnl
from linux.netlink import Netlink
from linux.netns import NetNS

DEFAULT_BRIDGE: Final = "cni0"
DEFAULT: Final = NetworkSpec(
    DEFAULT_NETWORK, subnet=IPv4Network("10.85.0.0/16"), gateway=IPv4Address("10.85.0.1")
)
"""The default network has what CNI's and CRI-O's examples have."""
_POOL: Final = IPv4Network("10.86.0.0/15")
_POOL6: Final = IPv6Network("fd00:86::/48")

Subnet = IPv4Network | IPv6Network
T = TypeVar("T", IPv4Network, IPv6Network)
A = TypeVar("A", IPv4Address, IPv6Address)


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks whose confs are in a directory."""

    home: Path

    def create(self, spec: NetworkSpec) -> NetworkFacts:
        """Write the conf of a network, with subnets chosen where none are asked for."""
        for name, value in (("internal", spec.internal), ("icc=false", not spec.icc)):
            if value:
                raise Refused(f"there is no CNI plugin for {name}")
        if self._path(spec.name).exists():
            raise Refused(f"network {spec.name} is there already")
        used = list(self._used())
        spec = _settled(spec, used)
        self._write(spec)
        return self.facts(spec.name)

    def ensure_default(self) -> None:
        """Write the default network's conf where it is not there yet."""
        if not self._path(DEFAULT_NETWORK).exists():
            self._write(DEFAULT)

    def _write(self, spec: NetworkSpec) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        found = cni.conf(spec, bridge(spec.name), self.home / "addresses")
        self._path(spec.name).write_text(json.dumps(found), encoding="utf-8")
        (self.home / f"{spec.name}.spec").write_bytes(pickle.dumps(spec))

    def conf(self, name: str) -> dict[str, Any]:
        """The list of plugins of a network."""
        try:
            found: dict[str, Any] = json.loads(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Refused(f"there is no network {name}") from None
        return found

    def facts(self, name: str) -> NetworkFacts:
        """What there is to tell about a network."""
        self.conf(name)
        spec: NetworkSpec = pickle.loads((self.home / f"{name}.spec").read_bytes())  # noqa: S301
        pairs = ((spec.gateway, spec.subnet), (spec.gateway6, spec.subnet6))
        gateways = tuple(
            ip_interface(f"{gateway}/{subnet.prefixlen}") for gateway, subnet in pairs if subnet
        )
        return NetworkFacts(name, name, bridge(name), gateways)

    def names(self) -> list[str]:
        """Every network's name."""
        return sorted(path.stem for path in self.home.glob("*.conflist"))

    def remove(self, name: str) -> None:
        """Take a conf away, and the bridge, which CNI leaves."""
        self.conf(name)
        with NetNS.own() as here, Netlink(here) as netlink:
            netlink.send([rtnl.del_link(bridge(name))], missing_ok=True)
        for path in (self._path(name), self.home / f"{name}.spec"):
            path.unlink()

    def _path(self, name: str) -> Path:
        return self.home / f"{name}.conflist"

    def _used(self) -> Iterator[Subnet]:
        """What is routed by the host, or on another network."""
        for name in self.names():
            yield from (item.network for item in self.facts(name).gateways)
        with NetNS.own() as here, Netlink(here) as netlink:
            held = [item.address.network for item in netstate.addresses(netlink)]
            routed = [item.destination for item in netstate.routes(netlink)]
        for network in (*held, *routed):
            if network is not None and network.prefixlen and not _of_the_links(network):
                yield network


def _of_the_links(network: Subnet) -> bool:
    return network.is_loopback or network.is_link_local or network.is_multicast


def bridge(name: str) -> str:
    """The bridge of a network; a name has more characters than a link may have."""
    if name == DEFAULT_NETWORK:
        return DEFAULT_BRIDGE
    return f"cni-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def _settled(spec: NetworkSpec, used: list[Subnet]) -> NetworkSpec:
    """A network's subnets and gateways, chosen or checked."""
    four = _subnet4(spec.subnet)
    six = _subnet6(spec.subnet6)
    for subnet in (four, six):
        for other in used if subnet else ():
            if subnet is not None and _overlap(subnet, other):
                raise Refused(f"subnet {subnet} overlaps {other}, which is in use")
    if four is None:
        four = next((item for item in _POOL.subnets(new_prefix=24) if not _any(item, used)), None)
        if four is None:
            raise Refused(f"no subnet of {_POOL} is free")
    if six is None and spec.ipv6:
        six = next(item for item in _POOL6.subnets(new_prefix=64) if not _any(item, used))
    gateway = _gateway4(spec.gateway, four)
    gateway6 = None if six is None else _gateway6(spec.gateway6, six)
    part = spec.ip_range
    if part is not None and not IPv4Network(str(part)).subnet_of(four):
        raise Refused(f"ip range {part} is not within subnet {four}")
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
        raise Refused(f"subnet {asked}: {error}") from None
    if found.prefixlen > longest or _of_the_links(found):
        raise Refused(f"subnet {asked} has no room for containers")
    return found


def _gateway4(asked: object, subnet: IPv4Network) -> IPv4Address:
    return _gateway(IPv4Address, asked, subnet, (subnet[0], subnet[-1]))


def _gateway6(asked: object, subnet: IPv6Network) -> IPv6Address:
    return _gateway(IPv6Address, asked, subnet, (subnet[0],))


def _gateway(
    kind: type[A], asked: object, subnet: IPv4Network | IPv6Network, reserved: tuple[A, ...]
) -> A:
    """The gateway that was asked for, else the first address that is not `reserved`."""
    if asked is None:
        return kind(int(subnet[1]))
    try:
        found = kind(str(asked))
    except ValueError as error:
        raise Refused(f"gateway {asked}: {error}") from None
    if found not in subnet or found in reserved:
        raise Refused(f"gateway {asked} is no address of subnet {subnet}")
    return found
