"""The links of a namespace, listed anew only when the kernel has told of a change.

To list links takes the lock for all links of the machine, which whoever removes a bridge holds
for 20 to 30 ms (br_multicast_dev_del waits with it for rcu_barrier). To hear takes none.
"""

from __future__ import annotations

import contextlib
import errno
from typing import Final, Self

from linux import netstate
from linux.netlink import Netlink
from linux.netns import NetNS

_LINKS: Final = 1
"""RTNLGRP_LINK (rtnetlink(7)): who came, went or changed. It is told before the acknowledgement."""


class LinkWatch:
    """Hears of the links of one namespace. Use it as a context manager, or `close` it.

    It keeps the namespace alive, and is of no use to who was forked meanwhile.
    """

    def __init__(self, netns: NetNS) -> None:
        self._found: list[netstate.Link] | None = None
        with contextlib.ExitStack() as stack:
            self._asked = stack.enter_context(Netlink(netns))
            # One of its own: what is told amid an answer would be lost there.
            self._told = stack.enter_context(Netlink(netns))
            self._told.join(_LINKS)
            self._resources = stack.pop_all()

    def links(self) -> list[netstate.Link]:
        """As `netstate.links`, as things are now."""
        if self._changed() or self._found is None:
            self._found = None  # should the question fail
            self._found = netstate.links(self._asked)
        return self._found

    def _changed(self) -> bool:
        try:
            return bool(self._told.told())
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._told.told()  # the rest, so that the next time is about what is new
            return True

    def fileno(self) -> int:
        """The descriptor that can be read when something was told."""
        return self._told.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
