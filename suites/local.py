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

    Those of a link without a carrier are not waited for: a bridge that nobody is on has none, and
    its IPv6 address becomes local with the first port.
    """

    def held() -> set[Network | None]:
        links = [link.name for link in place.links().values() if link.carrier]
        return {ip_network(item.ip) for name in links for item in place.interfaces(name)}

    with place.open() as space, Netlink(space) as netlink:
        until(place, lambda: held() <= _local(netlink), "its addresses are its own")
