"""Mode none: a network namespace of its own with `lo` up, and nothing else."""

from __future__ import annotations

from linux import rtnl
from linux.netlink import Netlink
from linux.netns import NetNS


def prepare(netns: NetNS) -> None:
    """Bring `lo` up: 127.0.0.1 and, where the kernel has IPv6, ::1."""
    with Netlink(netns) as inside:
        inside.send([rtnl.set_link(rtnl.LO, up=True)])
