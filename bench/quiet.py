"""Wait for work that the kernel does later and that would slow down the next measurement.

When a namespace is removed, the kernel removes its links later. For each bridge it holds the rtnl
lock for 20 to 30 ms.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Final

from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS

_BOUND: Final = 10.0


def taken_apart() -> None:
    """Wait until the kernel has removed all namespaces that have ended so far.

    The kernel removes namespaces in order. The function therefore makes a veth pair into a new
    namespace, ends that namespace and waits until the link is gone. The caller needs the right to
    create links. The function polls for the link, because an idle processor wakes up slowly. Raises
    `TimeoutError` after 10 s.
    """
    name = f"bench{os.getpid()}"
    with Netlink() as netlink, NetNS.new() as gone:
        netlink.send([rtnetlink.add_veth(name, "far", peer_netns=gone.fd)])
    deadline = time.monotonic() + _BOUND
    while _there(name):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the kernel did not remove a namespace within {_BOUND:g} s")


def _there(link: str) -> bool:
    try:
        socket.if_nametoindex(link)
    except OSError:
        return False
    return True
