"""Waiting until a link really carries packets.

A veth end that was brought up before its peer gets its queue from a worker of
the kernel (link watch) some time after the peer is up, up to a second on a busy
machine, and drops everything until then. Asking for that one link makes the
kernel catch up at once; a dump of all links does not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Final

from linux import netstate
from linux.netlink import Netlink

BOUND: Final = 5.0
"""Seconds after which a link without a carrier is an error. It takes microseconds."""


def await_carrier(netlink: Netlink, names: Iterable[str], *, bound: float = BOUND) -> None:
    """Wait until every link in `names` has its carrier; `TimeoutError` names the one without."""
    deadline = time.monotonic() + bound
    for name in names:
        while not netstate.link(netlink, name).running:
            if time.monotonic() > deadline:
                raise TimeoutError(f"link {name} has no carrier after {bound} s: is its peer up?")
            os.sched_yield()
