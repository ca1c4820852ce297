"""Whether a machine's kernel takes what comes for its addresses: for IPv6 that is not at once."""

from __future__ import annotations

from harness.model.topology import Address
from harness.testbench.netns_view import Place, until
from linux import rtnetlink_dump
from linux.netlink import Netlink


def at_rest(place: Place) -> None:
    """Wait until every address of a place is local to it: till then routes appear by themselves.

    But for those that are tentative, which on a bridge without a port they are until it has one.
    """
    with place.open() as space, Netlink(space) as netlink:

        def in_use() -> set[Address]:
            return {
                item.address.ip
                for item in rtnetlink_dump.addresses(netlink)
                if item.address.version == 6 and not (item.tentative or item.address.is_link_local)
            }

        until(place, lambda: in_use() <= rtnetlink_dump.taken(netlink), "its addresses are its own")
