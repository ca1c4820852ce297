"""Tests of the wait before a measurement, until the kernel has finished removals."""

from __future__ import annotations

from bench.quiet import taken_apart
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS


def test_quiet_waits_for_links_of_ended_namespaces() -> None:
    """The wait ends only when the links of ended namespaces are removed.

    The kernel removes them some time after the end of their namespace.
    """
    with NetNS.new() as here, here.entered(), Netlink() as netlink:
        for number in range(8):
            with NetNS.new() as gone:
                netlink.send([rtnetlink.add_veth(f"v{number}", "far", peer_netns=gone.fd)])
        taken_apart()
        assert [item.name for item in rtnetlink_dump.links(netlink)] == ["lo"]
