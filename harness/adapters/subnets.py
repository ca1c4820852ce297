"""Which subnets a network is given where an engine would choose them: none that is in use.

CNI leaves it to whoever writes a conf, and an operator of bridges to himself, that subnets do
not overlap. So this is the harness's own. It runs inside the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeVar

from harness.adapters.program import Refused
from harness.model import NetworkSpec
from linux import netstate
from linux.netlink import Netlink
from linux.netns import NetNS

POOL: Final = IPv4Network("10.86.0.0/15")
POOL6: Final = IPv6Network("fd00:86::/48")

Subnet = IPv4Network | IPv6Network
T = TypeVar("T", IPv4Network, IPv6Network)
A = TypeVar("A", IPv4Address, IPv6Address)


def of_host() -> Iterator[Subnet]:
    """What the host routes, or has an address in."""
    with NetNS.own() as here, Netlink(here) as netlink:
        held = [item.address.network for item in netstate.addresses(netlink)]
        routed = [item.destination for item in netstate.routes(netlink)]
    for network in (*held, *routed):
        if network is not None and network.prefixlen and not _of_the_links(network):
            yield network


def settled(spec: NetworkSpec, taken: Iterable[Subnet]) -> NetworkSpec:
    """A network's subnets and gateways, chosen or checked; `Refused` tells what cannot be."""
    used = list(taken)
    four = _subnet4(spec.subnet)
    six = _subnet6(spec.subnet6)
    for subnet in (four, six):
        for other in used if subnet else ():
            if subnet is not None and _overlap(subnet, other):
                raise Refused(f"subnet {subnet} overlaps {other}, which is in use")
    if four is None:
        four = next((item for item in POOL.subnets(new_prefix=24) if not _any(item, used)), None)
        if four is None:
            raise Refused(f"no subnet of {POOL} is free")
    if six is None and spec.ipv6:
        six = next(item for item in POOL6.subnets(new_prefix=64) if not _any(item, used))
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


def _of_the_links(network: Subnet) -> bool:
    return network.is_loopback or network.is_link_local or network.is_multicast
