"""Whether a machine's kernel takes what comes for its addresses: for IPv6 that is not at once."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Final

from harness.place import Place
from harness.topology import Address, Network
from harness.wait import until
from linux import netstate
from linux.netlink import Netlink

_TABLE: Final = 255
"""Where the kernel keeps the routes to a machine's own addresses (rtnetlink(7))."""


def _local(netlink: Netlink) -> set[Network | None]:
    found = netstate.routes(netlink, table=_TABLE, every_kind=True)
    return {route.destination for route in found}


def is_local(netlink: Netlink, address: Address) -> bool:
    """Whether the kernel takes what comes for an address: for IPv6 a work queue sees to that."""
    return ip_network(address) in _local(netlink)


def at_rest(place: Place) -> None:
    """Wait until every address of a place is local to it: till then routes appear by themselves.

    But for those that are tentative, which on a bridge without a port they are until it has one.
    """
    with place.open() as space, Netlink(space) as netlink:

        def in_use() -> set[Network | None]:
            return {
                ip_network(item.address.ip)
                for item in netstate.addresses(netlink)
                if not (item.tentative or item.address.is_link_local)
            }

        until(place, lambda: in_use() <= _local(netlink), "its addresses are its own")
