"""Controls for tests that assert that the host is unchanged."""

from __future__ import annotations

from harness.model.topology import START_TTL, Address
from harness.testbench.netns_view import NetnsView, until
from harness.world.state.snapshot import Snapshot
from linux import rtnetlink_dump
from linux.netlink import Netlink


def assert_change_shows(host: NetnsView, before: Snapshot) -> None:
    """Change a sysctl of the host, assert that a snapshot shows the change, and undo it."""
    host.tune({"net.ipv4.ip_default_ttl": 61})
    assert before.changes(host.snapshot()), "the control change of a sysctl is not visible"
    host.tune({"net.ipv4.ip_default_ttl": START_TTL})


def await_local_addresses(view: NetnsView) -> None:
    """Wait until every IPv6 address of the namespace is in the local routing table.

    Until then the kernel still adds routes. Tentative addresses are skipped, because on a bridge
    without ports they stay tentative.
    """
    with view.open() as space, Netlink(space) as netlink:

        def in_use() -> set[Address]:
            return {
                item.address.ip
                for item in rtnetlink_dump.addresses(netlink)
                if item.address.version == 6 and not (item.tentative or item.address.is_link_local)
            }

        until(
            view,
            lambda: in_use() <= rtnetlink_dump.local_addresses(netlink),
            "every IPv6 address is in the local routing table",
        )
