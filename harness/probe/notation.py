"""Addresses as sockets and messages have them: the same few, read and written again and again."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from harness.topology import Address

_MANY = 4096


@lru_cache(maxsize=_MANY)
def plain(text: str) -> Address:
    """An address as a socket tells it, without its scope; an IPv4 one that IPv6 maps as itself."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=_MANY)
def spelled(address: Address) -> str:
    """An address as a socket wants it."""
    return str(address)


@lru_cache(maxsize=_MANY)
def unpacked(packed: bytes) -> Address:
    """An address of 4 or 16 bytes in network order. Raises `ValueError` for any other number."""
    return ip_address(packed)
