"""Waiting for a named condition of a namespace, with a bound, woken by the kernel."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from harness.place import Place

BOUND: Final = 5.0
"""Seconds that the kernel may take to clean up after a namespace."""

_AGAIN: Final = 0.02
"""Seconds after which to look again: the end of a process, say, the kernel does not tell here."""
_GROUPS: Final = 0x1 | 0x10 | 0x100 | 0x40 | 0x400
"""RTMGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR, _IPV4_ROUTE, _IPV6_ROUTE: rtnetlink(7)."""


def until(place: Place, condition: Callable[[], bool], what: str, *, bound: float = BOUND) -> None:
    """Return as soon as `condition` holds; it is looked at again whenever the kernel tells.

    That is whenever a link, an address or a route of `place` changes, and now and then.
    `what` names the condition in the `TimeoutError` that is raised after `bound` seconds.
    """
    deadline = time.monotonic() + bound
    with place.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as monitor:
        monitor.bind((0, _GROUPS))
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"in {place.name}, still not after {bound} s: {what}")
            if select.select([monitor], [], [], min(left, _AGAIN))[0]:
                with contextlib.suppress(OSError):  # so much has changed that some is left out
                    monitor.recv(1 << 16)
