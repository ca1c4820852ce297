"""IP address management: the addresses and MACs of containers.

`pick` is pure: the lowest free address of a subnet, or the requested one. `Leases` stores the
addresses in use, one file per network.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final, NamedTuple

from runtime.errors import ConflictError, InvalidError
from runtime.records import Address, Connection, ContainerConfig, Network, NetworkConfig
from runtime.store import read_json, write_json

_OWN_MACS: Final = "02:42:"
"""Prefix of the MACs derived from addresses; no IPv6 address is written like this."""


def host_numbers(subnet: Network) -> range:
    """Return the addresses that a container may have, as integers.

    The network address (in IPv6 the subnet-router anycast, RFC 4291) and the broadcast address
    are excluded.
    """
    last = int(subnet.broadcast_address)
    return range(int(subnet.network_address) + 1, last if subnet.version == 4 else last + 1)


def pick(
    subnet: Network,
    taken: Container[str],
    *,
    within: Network | None = None,
    requested: Address | None = None,
) -> Address:
    """Return a free address of `subnet`, from the part `within` it, or the requested one.

    `taken` contains addresses as text, including the gateway's. Raise `ConflictError` if the
    requested address is in use or no address is free. Raise `InvalidError` if the requested address
    is outside the subnet, or the network or broadcast address.
    """
    allowed = host_numbers(subnet)
    if requested is not None:
        asked = f"assign the address {requested}"
        if requested not in subnet:
            raise InvalidError(asked, f"the address is not in the subnet {subnet}")
        if int(requested) not in allowed:
            raise InvalidError(asked, f"it is the network or broadcast address of {subnet}")
        if str(requested) in taken:
            raise ConflictError(asked, "the address is in use", remedy="mydocker network inspect")
        return requested
    if within is not None:
        first, last = int(within.network_address), int(within.broadcast_address)
        allowed = range(max(first, allowed.start), min(last + 1, allowed.stop))
    text = _TEXT[subnet.version]
    for number in allowed:
        if text(number) not in taken:
            return type(subnet.network_address)(number)
    raise ConflictError(
        f"find a free address in {within or subnet}",
        "every address is in use",
        remedy="remove a container, or use a network with a larger subnet",
    )


# Each start walks a full subnet: compare numbers, and format no address needlessly.
_TEXT: Final[dict[int, Callable[[int], str]]] = {
    4: lambda number: socket.inet_ntoa(number.to_bytes(4, "big")),
    6: lambda number: str(IPv6Address(number)),
}


def mac_of(address: Address) -> str:
    """Return the MAC of an address: 02:42 (locally administered) and its last four octets."""
    return f"{_OWN_MACS}{address.packed[-4:].hex(':')}"


def address_of(mac: str) -> str:
    """Return the IPv4 address from which a MAC derives; `""` for any other MAC."""
    if not mac.startswith(_OWN_MACS):
        return ""
    return str(IPv4Address(bytes.fromhex(mac[6:].replace(":", ""))))


def _read(path: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path)
    except FileNotFoundError:
        return {}
    return found


def _keep(path: str, entries: Mapping[str, object], kept: Mapping[str, object]) -> None:
    """Write the remaining entries to a file; remove the file if there are none."""
    if not kept and entries:
        os.unlink(path)
    elif len(kept) < len(entries):
        write_json(path, kept)


class Leases:
    """Leases of one network: address, or requested MAC, to container id.

    Hold the root's lock around each call.
    """

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/leases.json"

    def read(self) -> dict[str, str]:
        """Return the leases, by address."""
        return _read(self._path)

    def take(
        self, network: NetworkConfig, owner: str, *, ip: str = "", ip6: str = "", mac: str = ""
    ) -> list[Address]:
        """Lease container `owner` one address per subnet of the network."""
        leases = self.read()
        taken = {network.gateway, network.gateway6, *leases}
        # A requested MAC may be the one derived from a free address.
        taken |= {address_of(item) for item in leases if item.startswith(_OWN_MACS)}
        taken.discard("")
        if mac and (mac in leases or address_of(mac) in taken):
            raise ConflictError(f"assign the MAC address {mac}", "the address is in use")
        if ip6 and not network.subnet6:
            raise InvalidError(f"assign the address {ip6}", "the network has no IPv6")
        within = ip_network(network.ip_range) if network.ip_range else None
        given: list[Address] = []
        for subnet in network.subnets:
            wanted, part = (ip, within) if subnet.version == 4 else (ip6, None)
            requested = ip_address(wanted) if wanted else None
            given.append(pick(subnet, taken, within=part, requested=requested))
        keys = [str(address) for address in given] + ([mac] if mac else [])
        write_json(self._path, {**leases, **dict.fromkeys(keys, owner)})
        return given

    def release(self, owners: Collection[str]) -> None:
        """Release all leases of these containers."""
        leases = self.read()
        kept = {key: other for key, other in leases.items() if other not in owners}
        _keep(self._path, leases, kept)


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
        return {identity: Member(*entry) for identity, entry in _read(self.path).items()}

    def add(self, identity: str, names: Iterable[str], addresses: Iterable[Address]) -> None:
        """Add a member, or replace it."""
        member = Member([name.lower() for name in names], [str(item) for item in addresses])
        write_json(self.path, {**self.read(), identity: member})

    def remove(self, identities: Collection[str]) -> None:
        """Remove members."""
        members = self.read()
        kept = {key: member for key, member in members.items() if key not in identities}
        _keep(self.path, members, kept)


def names_of(config: ContainerConfig, connection: Connection) -> list[str]:
    """Return a container's names on a network: name, aliases, short id and hostname.

    As in Docker (`DNSNames` of an endpoint in its Engine API).
    """
    return list(dict.fromkeys([config.name, *connection.aliases, config.id[:12], config.hostname]))
