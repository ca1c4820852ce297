"""Wait for the kernel's deferred work, which would slow down the next measurement.

The removal of a namespace returns before its links are gone. Each bridge in it takes the kernel
20 to 30 ms with the rtnl lock held.
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
    """Return once all namespaces that ended before are gone; the kernel removes them in order.

    It makes a link into a namespace, ends the namespace, and waits for the end of the link, for
    which it needs the right to make links here. It polls, since an idle processor wakes up slowly.
    """
    name = f"bench{os.getpid()}"
    with Netlink() as netlink, NetNS.new() as gone:
        netlink.send([rtnetlink.add_veth(name, "far", peer_netns=gone.fd)])
    deadline = time.monotonic() + _BOUND
    while _there(name):
        if time.monotonic() > deadline:
            raise TimeoutError(f"a namespace was not taken apart within {_BOUND:g} s")


def _there(link: str) -> bool:
    try:
        socket.if_nametoindex(link)
    except OSError:
        return False
    return True
