"""IP address management: the addresses and MACs of containers.

`pick` is pure: the lowest free address of a subnet, or the requested one. `Leases` stores the
addresses in use, one file per network; a caller that changes it holds the root's lock, which
makes concurrent starts safe.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

from runtime.errors import (
    ConflictError,
    InvalidError,
)
from runtime.records import (
    Address,
    Connection,
    ContainerConfig,
    Network,
    NetworkConfig,
)
from runtime.store import read_json, write_json

_OWN_MACS: Final = "02:42:"
"""Prefix of the MACs derived from addresses; no IPv6 address is written like this."""


def hosts(subnet: Network) -> Iterator[Address]:
    """Yield the addresses that a container may have, lowest first.

    Skip the network address (in IPv6 the subnet-router anycast, RFC 4291) and the broadcast
    address. Both addresses of a /31 and a /127 count (RFC 3021, 6164).
    """
    kind = type(subnet.network_address)
    return (kind(number) for number in _numbers(subnet))


def _numbers(subnet: Network) -> range:
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    if last - first > 1:
        first += 1
        last -= 1 if subnet.version == 4 else 0
    return range(first, last + 1)


def pick(
    subnet: Network,
    taken: Container[str],
    *,
    within: Network | None = None,
    requested: Address | None = None,
) -> Address:
    """Return a free address of `subnet`, from the part `within` it, or the requested one.

    `taken` holds addresses as text, the gateway's among them. `ConflictError` if the request is
    taken or no address is left, `InvalidError` if it lies outside or is the network or broadcast
    address.
    """
    if requested is not None:
        _refuse(subnet, taken, requested)
        return requested
    allowed, edges = _numbers(subnet), set[int]()
    if within is not None:
        allowed = range(int(within.network_address), int(within.broadcast_address) + 1)
        edges = {int(subnet.network_address)}
        if subnet.version == 4 and subnet.prefixlen < 31:
            edges.add(int(subnet.broadcast_address))
    text = _TEXT[subnet.version]
    for number in allowed:
        if text(number) not in taken and number not in edges:
            return type(subnet.network_address)(number)
    raise ConflictError(
        f"find a free address in {within or subnet}",
        "every address is taken",
        remedy="remove a container, or use a network with a larger subnet",
    )


# Each start walks a full subnet: work on numbers, and format no address needlessly.
_TEXT: Final[dict[int, Callable[[int], str]]] = {
    4: lambda number: socket.inet_ntoa(number.to_bytes(4, "big")),
    6: lambda number: str(IPv6Address(number)),
}


def _refuse(subnet: Network, taken: Container[str], requested: Address) -> None:
    asked = f"give a container the address {requested}"
    if requested not in subnet:
        raise InvalidError(asked, f"it is not in the subnet {subnet}")
    edges = (subnet.network_address, subnet.broadcast_address)
    if subnet.num_addresses > 2 and requested in (edges if subnet.version == 4 else edges[:1]):
        raise InvalidError(asked, f"it is the network's own address or the broadcast of {subnet}")
    if str(requested) in taken:
        raise ConflictError(asked, "it is taken", remedy="mydocker network inspect")


def mac_of(address: Address) -> str:
    """Return the MAC of an address: 02:42 (locally administered) and its last four octets."""
    return f"{_OWN_MACS}{address.packed[-4:].hex(':')}"


def address_of(mac: str) -> str:
    """Return the IPv4 address that a MAC derives from; `""` if it is no such MAC."""
    if not mac.startswith(_OWN_MACS):
        return ""
    return str(IPv4Address(bytes.fromhex(mac[6:].replace(":", ""))))


class Leases:
    """Leases of one network: address, or requested MAC, to container id."""

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/leases.json"

    def read(self) -> dict[str, str]:
        """Return the leases, by address; hold the root's lock."""
        try:
            found: dict[str, str] = read_json(self._path)
        except FileNotFoundError:
            return {}
        return found

    def take(
        self, network: NetworkConfig, owner: str, *, ip: str = "", ip6: str = "", mac: str = ""
    ) -> list[Address]:
        """Lease container `owner` one address per subnet of the network; hold the root's lock."""
        leases = self.read()
        taken = {network.gateway, network.gateway6, *leases}
        # A requested MAC may be the one derived from a free address.
        taken |= {address_of(item) for item in leases if item.startswith(_OWN_MACS)}
        taken.discard("")
        if mac and (mac in leases or address_of(mac) in taken):
            raise ConflictError(f"give a container the MAC {mac}", "it is taken")
        if ip6 and not network.subnet6:
            raise InvalidError(f"give a container the address {ip6}", "the network has no IPv6")
        within = ip_network(network.ip_range) if network.ip_range else None
        given: list[Address] = []
        for subnet in network.subnets:
            wanted = ip if subnet.version == 4 else ip6
            given.append(
                pick(
                    subnet,
                    taken,
                    within=within if subnet.version == 4 else None,
                    requested=ip_address(wanted) if wanted else None,
                )
            )
        keys = [str(address) for address in given] + ([mac] if mac else [])
        write_json(self._path, {**leases, **dict.fromkeys(keys, owner)})
        return given

    def release(self, owners: Collection[str]) -> None:
        """Release all leases of these containers; hold the root's lock."""
        leases = self.read()
        kept = {key: other for key, other in leases.items() if other not in owners}
        if len(kept) == len(leases):
            return
        if kept:
            write_json(self._path, kept)
        else:
            os.unlink(self._path)


def default_gateway(subnet: Network) -> Address:
    """Return the default address of a network's bridge: the first."""
    return next(hosts(subnet))


class Member(NamedTuple):
    """Names, in lower case, and addresses of a container on one network."""

    names: list[str]
    addresses: list[str]


class Members:
    """The members of one network, by container id."""

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/members.json"

    def read(self) -> dict[str, Member]:
        """Return all members."""
        try:
            found = read_json(self.path)
        except FileNotFoundError:
            return {}
        return {identity: Member(*entry) for identity, entry in found.items()}

    def add(self, identity: str, names: Iterable[str], addresses: Iterable[Address]) -> None:
        """Add a member, or replace it."""
        member = Member([name.lower() for name in names], [str(item) for item in addresses])
        write_json(self.path, {**self.read(), identity: member})

    def remove(self, identities: Collection[str]) -> None:
        """Remove members."""
        members = self.read()
        kept = {key: member for key, member in members.items() if key not in identities}
        if len(kept) == len(members):
            return
        if kept:
            write_json(self.path, kept)
        else:
            os.unlink(self.path)


def names_of(config: ContainerConfig, connection: Connection) -> list[str]:
    """Return a container's names on a network: name, aliases, short id and hostname.

    As in Docker (`DNSNames` of an endpoint in its Engine API).
    """
    return list(dict.fromkeys([config.name, *connection.aliases, config.id[:12], config.hostname]))
