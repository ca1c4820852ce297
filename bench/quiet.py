"""Waiting for what the kernel does behind one's back: the next to be measured would pay for it.

Who removes a namespace does not wait until it is taken apart. For every bridge in it that takes the
kernel 20 to 30 ms with the lock for all links held, and for each link it is busy besides.
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
    """Return once all network namespaces that ended before are gone: they go one after another.

    Told by a link into one that ends now. For who may make links where it is. It looks again and
    again: a processor that has slept begins slowly, the more so the more processes hand over.
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
