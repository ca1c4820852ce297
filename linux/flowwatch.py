"""Which flows there may be in a namespace, as the kernel tells when one begins and when it ends.

A dump of conntrack walks the hash table of the whole machine, 9 ms where that has 262144
buckets. To hear of each flow costs microseconds, and says most often that there is nothing
to dump for.

Source: nf_conntrack_ecache.c, ctnetlink_conntrack_event in nf_conntrack_netlink.c.
"""

from __future__ import annotations

from typing import Final

from linux import sysctl
from linux.conntrack import Conntrack, having
from linux.netlink import NETLINK_NETFILTER, Netlink, chosen
from linux.netns import NetNS

_NEW_FLOWS, _ENDED_FLOWS = 1, 3
"""NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY."""
_BEGUN, _ENDED = 1 << 8, 1 << 8 | 2
"""IPCTNL_MSG_CT_NEW and IPCTNL_MSG_CT_DELETE of the subsystem."""
_ID: Final = 12
_EVENTS: Final = "net.netfilter.nf_conntrack_events"


class FlowWatch:
    """Hears of the flows of one namespace. Use it as a context manager, or `close` it.

    What it was told and what it was not: a flow that began before may have ended unheard,
    so it may be there; where so much has begun that some was left out, it asks for all.
    """

    def __init__(self, netns: NetNS) -> None:
        self._netns = netns
        self._known: dict[bytes, bytes] | None = None
        """Flows by their ids; `None` when all are to be asked for."""
        self._netlink = Netlink(netns, protocol=NETLINK_NETFILTER)
        self._told = _tells(netns)
        if self._told:
            self._netlink.join(_NEW_FLOWS)
            self._netlink.join(_ENDED_FLOWS)

    def may_have(self, *marks: bytes) -> bool:
        """Whether a flow may be there that `Conntrack.marked` finds; when not, then for certain."""
        if not marks:
            return False
        if not self._told:
            return True
        self._hear()
        if self._known is None:
            with Conntrack(self._netns) as conntrack:
                self._known = {_id(body): body for body in conntrack.raw()}
            self._hear()
        return self._known is None or any(map(having(marks), self._known.values()))

    def _hear(self) -> None:
        """Take in what was told since the last time."""
        while True:
            try:
                told = self._netlink.told()
                break
            except OSError:  # ENOBUFS: some was left out, and what follows is of no use without it
                self._known = None
        if self._known is None:
            return
        for kind, body in told:
            if kind == _BEGUN:
                self._known[_id(body)] = body
            elif kind == _ENDED:
                self._known.pop(_id(body), None)

    def fileno(self) -> int:
        """The descriptor that can be read when something was told."""
        return self._netlink.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._netlink.close()

    def __enter__(self) -> FlowWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _id(body: bytes) -> bytes:
    return chosen(body, 4, (_ID,))[_ID]


def _tells(netns: NetNS) -> bool:
    """Whether the kernel is built to tell of flows, and the namespace does not forbid it."""
    try:
        return sysctl.read(netns, (_EVENTS,))[_EVENTS] != "0"
    except OSError:
        return False
