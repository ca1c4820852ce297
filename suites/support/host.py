"""The positive control of a host that is held to be unchanged."""

from __future__ import annotations

from harness.model.topology import START_TTL, Address
from harness.testbench.netns_view import NetnsView, until
from harness.world.state.snapshot import Snapshot
from linux import rtnetlink_dump
from linux.netlink import Netlink


def a_change_would_show(host: NetnsView, before: Snapshot) -> None:
    """Change one sysctl of the host, see that it shows, and put it back."""
    host.tune({"net.ipv4.ip_default_ttl": 61})
    assert before.changes(host.snapshot()), "what is changed must show"
    host.tune({"net.ipv4.ip_default_ttl": START_TTL})


def at_rest(place: NetnsView) -> None:
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

        until(
            place,
            lambda: in_use() <= rtnetlink_dump.local_addresses(netlink),
            "its addresses are its own",
        )
