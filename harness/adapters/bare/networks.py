"""Specs of a bare runtime's networks, on disk in the host, and the choice of free subnets.

Neither CNI nor a Linux bridge prevents overlapping subnets, so this module does, as an engine
would. All of the module runs inside the host.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
)
from pathlib import Path
from typing import Final, TypeVar

from harness.adapters.bare.store import HOME
from harness.adapters.protocol import NetworkInfo
from harness.adapters.support.program import ProgramRefused
from harness.model.plan import NetworkSpec
from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS

_FOLDER: Final = HOME / "networks"
ADDRESSES: Final = _FOLDER / "addresses"
"""The directory in which host-local stores the assigned addresses."""
POOL: Final = IPv4Network("10.86.0.0/15")
_POOL6: Final = IPv6Network("fd00:86::/48")

Subnet = IPv4Network | IPv6Network
T = TypeVar("T", IPv4Network, IPv6Network)
A = TypeVar("A", IPv4Address, IPv6Address)


def names() -> list[str]:
    """Return the names of all networks."""
    return sorted(path.stem for path in _FOLDER.glob("*.spec"))


def load(name: str) -> NetworkSpec:
    """Return the spec of a network; raise `ProgramRefused` if there is none."""
    try:
        found: NetworkSpec = pickle.loads(_path(name).read_bytes())  # noqa: S301 # our own
    except FileNotFoundError:
        raise ProgramRefused(f"no such network: {name}") from None
    return found


def save(spec: NetworkSpec) -> None:
    """Write the spec of a network; its subnets and gateways must be set."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    _path(spec.name).write_bytes(pickle.dumps(spec))


def forget(name: str) -> None:
    """Remove the spec of a network."""
    _path(name).unlink()


def _path(name: str) -> Path:
    return _FOLDER / f"{name}.spec"


def bridge_name(kind: str, network: str) -> str:
    """Return a network's bridge name, with a hash: link names have at most 15 characters."""
    return f"{kind}-{hashlib.sha256(network.encode()).hexdigest()[: 13 - len(kind)]}"


def facts(spec: NetworkSpec, bridge: str) -> NetworkInfo:
    """Return the facts about a network."""
    return NetworkInfo(spec.name, spec.name, bridge, gateways(spec))


def gateways(spec: NetworkSpec) -> tuple[IPv4Interface | IPv6Interface, ...]:
    """Return the gateways of a network with their prefix lengths."""
    pairs = ((spec.gateway, spec.subnet), (spec.gateway6, spec.subnet6))
    return tuple(ip_interface(f"{at}/{net.prefixlen}") for at, net in pairs if at and net)


def completed(spec: NetworkSpec, refusal: str) -> NetworkSpec:
    """Return a new network's spec with subnets and gateways; requested ones are checked.

    Raises `ProgramRefused` for an invalid or overlapping subnet and for a name that is taken. For
    an option that the network backend does not have, the message is `refusal`.
    """
    for option, value in (("internal", spec.internal), ("icc=false", not spec.icc)):
        if value:
            raise ProgramRefused(f"{refusal} {option}")
    if _path(spec.name).exists():
        raise ProgramRefused(f"network {spec.name} already exists")
    used = [item.network for name in names() for item in gateways(load(name))]
    used += _used_subnets()
    four = _requested(IPv4Network, spec.subnet, used)
    six = _requested(IPv6Network, spec.subnet6, used)
    if four is None:
        four = _free(POOL.subnets(new_prefix=24), used)
        if four is None:
            raise ProgramRefused(f"no subnet of {POOL} is free")
    if six is None and spec.ipv6:
        six = _free(_POOL6.subnets(new_prefix=64), used)
    part = spec.ip_range
    if part is not None and not IPv4Network(str(part)).subnet_of(four):
        raise ProgramRefused(f"ip range {part} is not within subnet {four}")
    return replace(
        spec,
        subnet=four,
        gateway=_gateway(IPv4Address, spec.gateway, four),
        subnet6=six,
        gateway6=None if six is None else _gateway(IPv6Address, spec.gateway6, six),
        ipv6=six is not None,
    )


def _used_subnets() -> Iterator[Subnet]:
    """Yield the subnets to which the host has a route or an address."""
    with NetNS.own() as here, Netlink(here) as netlink:
        held = [item.address.network for item in rtnetlink_dump.addresses(netlink)]
        routed = [item.destination for item in rtnetlink_dump.routes(netlink)]
    for network in (*held, *routed):
        if network is not None and network.prefixlen and not _is_of_links(network):
            yield network


def _is_of_links(network: Subnet) -> bool:
    return network.is_loopback or network.is_link_local or network.is_multicast


def _requested(kind: type[T], wanted: object, used: Sequence[Subnet]) -> T | None:
    if wanted is None:
        return None
    try:
        found = kind(str(wanted))
    except ValueError as error:
        raise ProgramRefused(f"subnet {wanted}: {error}") from None
    if found.max_prefixlen - found.prefixlen < 2 or _is_of_links(found):
        raise ProgramRefused(f"subnet {wanted} has no room for containers")
    for other in used:
        if found.overlaps(other):
            raise ProgramRefused(f"subnet {found} overlaps {other}, which is in use")
    return found


def _free(candidates: Iterator[T], used: Sequence[Subnet]) -> T | None:
    return next((item for item in candidates if not any(map(item.overlaps, used))), None)


def _gateway(kind: type[A], wanted: object, subnet: Subnet) -> A:
    """Return the requested gateway, or else the first address of the subnet."""
    if wanted is None:
        return kind(int(subnet[1]))
    try:
        found = kind(str(wanted))
    except ValueError as error:
        raise ProgramRefused(f"gateway {wanted}: {error}") from None
    reserved = (subnet[0], subnet[-1]) if subnet.version == 4 else (subnet[0],)
    if found not in subnet or found in reserved:
        raise ProgramRefused(f"gateway {wanted} is not an address of subnet {subnet}")
    return found
