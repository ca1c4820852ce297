"""Tests of the wait for the kernel to finish removals before the next measurement."""

from __future__ import annotations

from bench.quiet import taken_apart
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS


def test_quiet_waits_for_links_of_ended_namespaces() -> None:
    """The wait before a measurement ends after the links of ended namespaces are removed.

    The kernel removes them some time after the namespace's end.
    """
    with NetNS.new() as here, here.entered(), Netlink() as netlink:
        for number in range(8):
            with NetNS.new() as gone:
                netlink.send([rtnetlink.add_veth(f"v{number}", "far", peer_netns=gone.fd)])
        taken_apart()
        assert [item.name for item in rtnetlink_dump.links(netlink)] == ["lo"]
