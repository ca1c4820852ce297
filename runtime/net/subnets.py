"""Subnets of networks: read, checked, chosen. Pure.

`asked` is what the caller was asked to do, in words, for the error's sake.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from runtime.errors import ConflictError, InvalidError
from runtime.net.ipam import default_gateway
from runtime.records import Address, Network

DEFAULT: Final = "172.17.0.0/16"
"""The subnet of the default network."""


_TAKEN: Final[dict[Network, str]] = {
    ip_network("0.0.0.0/8"): "nobody's: they mean this network",
    ip_network("127.0.0.0/8"): "the loopback interface's",
    ip_network("169.254.0.0/16"): "link-local: no router passes them on",
    ip_network("224.0.0.0/4"): "groups of receivers (multicast)",
    ip_network("240.0.0.0/4"): "reserved, the last of them for broadcast",
    ip_network("::/8"): "reserved: the loopback address and mapped IPv4 are among them",
    ip_network("fe80::/10"): "link-local: no router passes them on",
    ip_network("ff00::/8"): "groups of receivers (multicast)",
}
"""Addresses that no container can have, and what they are for (RFC 6890, RFC 4291)."""

_EXAMPLES: Final = {4: "10.20.0.0/24", 6: "fd00:20::/64"}


def parse(asked: str, text: str, version: int) -> Network:
    """A subnet as the user wrote it; `InvalidError` tells what is wrong with it."""
    try:
        subnet = ip_network(text)
    except ValueError as error:
        raise InvalidError(asked, f"the subnet {text!r} is malformed: {error}") from None
    if subnet.version != version or "/" not in text:
        raise InvalidError(asked, f"{text!r} is not an IPv{version} subnet with a prefix length")
    if subnet.num_addresses < 4:
        raise InvalidError(asked, f"the subnet {text} has no room for a gateway and a container")
    for other, use in _TAKEN.items():
        if subnet.version == other.version and subnet.overlaps(other):
            raise InvalidError(
                asked,
                f"containers cannot have the addresses of {text}",
                f"those of {other} are {use}",
                f"a subnet such as {_EXAMPLES[version]}",
            )
    return subnet


def gateway_of(asked: str, subnet: Network, text: str) -> Address:
    """The gateway asked for, or the first address; never the network's or the broadcast one."""
    if not text:
        return default_gateway(subnet)
    try:
        gateway = ip_address(text)
    except ValueError as error:
        raise InvalidError(asked, f"the gateway is malformed: {error}") from None
    edges = (subnet.network_address, subnet.broadcast_address)
    if gateway not in subnet or gateway in (edges if subnet.version == 4 else edges[:1]):
        raise InvalidError(asked, f"the gateway {text} is no host address of {subnet}")
    return gateway


def within(asked: str, subnet: Network, text: str) -> Network:
    """The part of an IPv4 subnet that containers get addresses from."""
    part = parse(asked, text, 4)
    if not (isinstance(part, IPv4Network) and isinstance(subnet, IPv4Network)):
        raise InvalidError(asked, f"the range {text} is not IPv4")
    if not part.subnet_of(subnet):
        raise InvalidError(asked, f"the range {text} is not within {subnet}")
    return part


def refuse_overlap(asked: str, subnet: Network | None, used: list[Network]) -> None:
    """Raise `ConflictError` when `subnet` shares an address with one that is in use."""
    for other in used:
        if subnet is not None and subnet.version == other.version and subnet.overlaps(other):
            raise ConflictError(
                asked,
                f"its subnet {subnet} overlaps {other}",
                "another network or a route of this host uses it",
                "choose another --subnet, or see `ip route` and `mydocker network ls`",
            )


def _candidates() -> Iterator[IPv4Network]:
    yield from IPv4Network("172.16.0.0/12").subnets(new_prefix=16)
    yield from IPv4Network("192.168.0.0/16").subnets(new_prefix=20)


def free(asked: str, used: list[Network]) -> IPv4Network:
    """The first private subnet that nobody uses."""
    reserved = [IPv4Network("172.16.0.0/16"), IPv4Network(DEFAULT)]
    for subnet in _candidates():
        if not any(subnet.overlaps(other) for other in [*reserved, *used] if other.version == 4):
            return subnet
    raise ConflictError(asked, "every private subnet is in use", remedy="give one with --subnet")


def ula(identity: str) -> IPv6Network:
    """A unique local /64 (RFC 4193) from the network's random id."""
    random = bytes.fromhex(identity)[:5]
    return IPv6Network((b"\xfd" + random + bytes(10), 64))
