"""Which flows there are in a namespace, as the kernel tells when one begins and when it ends.

A dump of conntrack walks the hash table of the whole machine, 9 ms where that has 262144
buckets. To hear of each flow costs microseconds, and most often there is nothing to dump for.

Source: nf_conntrack_ecache.c, ctnetlink_conntrack_event in nf_conntrack_netlink.c.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Collection
from typing import Final

from linux import sysctl
from linux.conntrack import Conntrack, Flow, having, read_flow
from linux.netlink import NETLINK_NETFILTER, Netlink, chosen
from linux.netns import NetNS

_NEW_FLOWS, _ENDED_FLOWS = 1, 3
"""NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY."""
_BEGUN, _ENDED = 1 << 8, 1 << 8 | 2
"""IPCTNL_MSG_CT_NEW and IPCTNL_MSG_CT_DELETE of the subsystem."""
_ID: Final = 12
_FEW: Final = 256
"""So many flows are asked for one by one in less time than a dump takes."""
_EVENTS: Final = "net.netfilter.nf_conntrack_events"


class FlowWatch:
    """Hears of the flows of one namespace. Use it as a context manager, or `close` it.

    It may be used by several threads, and by nobody after a fork.

    What is told is not all: a flow that began before ends unheard, and one whose first packet
    a bridge floods to its own host begins so (br_nf_local_in in br_netfilter_hooks.c confirms
    it without a word). So what was heard is held against how many there are; where that is
    another number, or so much has begun that some was left out, all are asked for.
    """

    def __init__(self, netns: NetNS) -> None:
        self._known: dict[bytes, bytes] | None = None
        """Flows by their ids; `None` when all are to be asked for."""
        self._asking = threading.Lock()
        with contextlib.ExitStack() as stack:
            self._conntrack = stack.enter_context(Conntrack(netns))
            self._netlink = stack.enter_context(Netlink(netns, protocol=NETLINK_NETFILTER))
            self._told = _tells(netns)
            if self._told:
                self._netlink.join(_NEW_FLOWS)
                self._netlink.join(_ENDED_FLOWS)
                self._known = self._asked()
            self._unheard = set(self._known or ())
            """Those of whose beginning nobody told: of their end the kernel need not tell."""
            self._resources = stack.pop_all()

    def marked(self, *marks: bytes) -> list[Flow]:
        """As `Conntrack.marked`, and those that have run out but are not collected yet."""
        if not marks:
            return []
        with self._asking:
            if not self._told:
                return self._conntrack.marked(*marks)
            return [read_flow(body) for body in filter(having(marks), self._listed())]

    def _listed(self) -> Collection[bytes]:
        """The flows that there are."""
        known = self._whole()
        if known is None:
            before, self._known = self._known, self._asked()
            known = self._known
            if before is not None:
                self._unheard |= known.keys() - before.keys()
            self._unheard &= known.keys()
        return known.values()

    def _whole(self) -> dict[bytes, bytes] | None:
        """What is known, when it is what there is."""
        for _ in range(2):  # once more: what ended while it was looked for has been told then
            self._hear()
            known = self._known
            if known is None or len(self._unheard) > _FEW:
                return None
            for name in [item for item in self._unheard if not self._conntrack.has(known[item])]:
                self._end(name)
            count = self._conntrack.count()
            # What ended before it was counted would make room for one that began unheard.
            if not self._hear() and len(known) == count:
                return known
        return None

    def _asked(self) -> dict[bytes, bytes]:
        return {_id(body): body for body in self._conntrack.raw()}

    def _end(self, name: bytes) -> None:
        self._unheard.discard(name)
        if self._known is not None:
            self._known.pop(name, None)

    def _hear(self) -> bool:
        """Take in what was told since the last time; whether anything was."""
        while True:
            try:
                told = self._netlink.told()
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._known = None  # some was left out: what follows is of no use without it
        if self._known is None:
            return True
        for kind, body in told:
            if kind == _BEGUN:
                self._known[_id(body)] = body
                self._unheard.discard(_id(body))
            elif kind == _ENDED:
                self._end(_id(body))
        return bool(told)

    def fileno(self) -> int:
        """The descriptor that can be read when something was told."""
        return self._netlink.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._resources.close()

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
