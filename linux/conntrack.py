"""Connection tracking through ctnetlink: which flows the kernel knows, and forgetting some.

Only a flow's first packet meets the nat rules; what they decided holds for as long
as the flow is known. So a rule that changes must be followed by forgetting the flows
that it would decide otherwise.

Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    Netlink,
    NetlinkError,
    Request,
    attr,
    attributes,
    nest,
    pick,
)
from linux.netns import NetNS, read_sysctls

Address = IPv4Address | IPv6Address

_SUBSYSTEM: Final = 1
_GET, _DELETE, _GET_STATS, _ENTRIES = 1, 2, 5, 1
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18
_IP, _PROTOCOL = 1, 2
_SOURCES: Final = {4: 1, 6: 3}
_DESTINATIONS: Final = {4: 2, 6: 4}
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}


class FlowTuple(NamedTuple):
    """One direction of a flow. Ports are 0 where the protocol has none."""

    source: Address
    destination: Address
    protocol: int
    source_port: int = 0
    destination_port: int = 0


class Flow(NamedTuple):
    """One flow: its first packet as it came in, and an answer as it comes in.

    Without address translation `reply` is `original` turned round.
    """

    original: FlowTuple
    reply: FlowTuple
    handle: bytes
    """What names it to the kernel."""

    @property
    def addresses(self) -> set[Address]:
        """Everybody who takes part, translated or not."""
        ends = (self.original, self.reply)
        return {item for end in ends for item in (end.source, end.destination)}


def port_mark(number: int) -> bytes:
    """What marks a flow to a port."""
    return attr(_DESTINATION_PORT, number.to_bytes(2, "big"))


def protocol_mark(number: int) -> bytes:
    """What marks a flow of a protocol."""
    return attr(_NUMBER, bytes([number]))


def matcher(marks: Iterable[bytes]) -> Callable[[bytes], object]:
    """What tells of a flow as the kernel tells it whether it has one of some marks."""
    return re.compile(b"|".join(map(re.escape, marks)), re.DOTALL).search


class Conntrack:
    """The flows of one namespace. Use it as a context manager, or `close` it."""

    def __init__(self, netns: NetNS | None = None) -> None:
        self._netlink = Netlink(netns, protocol=NETLINK_NETFILTER)

    def count(self) -> int:
        """How many flows there are, which costs next to nothing to ask."""
        request = Request(_SUBSYSTEM << 8 | _GET_STATS, 0, bytes(4), "count flows")
        (answer,) = self._netlink.ask(request)
        return int.from_bytes(dict(attributes(answer, 4))[_ENTRIES], "big")

    def all(self) -> list[Flow]:
        """Every flow of both families. The kernel walks its whole table: milliseconds."""
        return [read_flow(answer) for answer in self.raw()]

    def marked(self, *marks: bytes) -> list[Flow]:
        """As `all`, but for those that have none of the marks somewhere: they are not looked at.

        A mark is an address in network order, or what `port_mark` and `protocol_mark` make. A flow that
        has one need not be one of those meant: that is for the caller to find out.
        """
        if not marks:
            return []
        return [read_flow(answer) for answer in filter(matcher(marks), self.raw())]

    def of(self, addresses: Collection[Address]) -> list[Flow]:
        """The flows that have one of these addresses somewhere."""
        found = self.marked(*(item.packed for item in addresses))
        return [flow for flow in found if not flow.addresses.isdisjoint(addresses)]

    def raw(self) -> Iterator[bytes]:
        """What the kernel tells of each flow, as it tells it."""
        if not self.count():
            return iter(())
        request = Request(_SUBSYSTEM << 8 | _GET, NLM_F_DUMP, bytes(4), "list flows")
        return iter(self._netlink.ask(request))

    def has(self, told: bytes) -> bool:
        """Whether a flow, as the kernel told of it once, is there still: without walking."""
        flow = read_flow(told)
        request = Request(_SUBSYSTEM << 8 | _GET, 0, flow.handle, f"look up {flow.original}")
        try:
            (answer,) = self._netlink.ask(request)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return read_flow(answer).handle == flow.handle

    def forget(self, flows: Iterable[Flow]) -> None:
        """Have the kernel forget flows; their next packet is a first one again."""
        self._netlink.send(
            [
                Request(_SUBSYSTEM << 8 | _DELETE, 0, flow.handle, f"forget {flow.original}")
                for flow in flows
            ],
            missing_ok=True,
        )

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def __enter__(self) -> Conntrack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_flow(answer: bytes) -> Flow:
    """A flow as the kernel tells it, asked or not."""
    found = dict(attributes(answer, 4))
    original, reply = _ends(found[_ORIGINAL]), _ends(found[_REPLY])
    head = struct.pack(">BBH", _FAMILIES[original.source.version], 0, 0)
    zone = attr(_ZONE, found[_ZONE]) if _ZONE in found else b""
    handle = head + nest(_ORIGINAL, found[_ORIGINAL]) + zone + attr(_ID, found[_ID])
    return Flow(original, reply, handle)


def _ends(data: bytes) -> FlowTuple:
    found = dict(attributes(data))
    ip, protocol = dict(attributes(found[_IP])), dict(attributes(found[_PROTOCOL]))
    version = 4 if _SOURCES[4] in ip else 6
    return FlowTuple(
        ip_address(ip[_SOURCES[version]]),
        ip_address(ip[_DESTINATIONS[version]]),
        protocol[_NUMBER][0],
        int.from_bytes(protocol.get(_SOURCE_PORT, b""), "big"),
        int.from_bytes(protocol.get(_DESTINATION_PORT, b""), "big"),
    )


_NEW_FLOWS, _ENDED_FLOWS = 1, 3
"""NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY."""
_BEGUN, _ENDED = 1 << 8, 1 << 8 | 2
"""IPCTNL_MSG_CT_NEW and IPCTNL_MSG_CT_DELETE of the subsystem."""
_FLOWWATCH_ID: Final = 12
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
        import threading  # commands that only forget flows do not need it

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
            return [read_flow(body) for body in filter(matcher(marks), self._listed())]

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
    return pick(body, 4, (_FLOWWATCH_ID,))[_FLOWWATCH_ID]


def _tells(netns: NetNS) -> bool:
    """Whether the kernel is built to tell of flows, and the namespace does not forbid it."""
    try:
        return read_sysctls(netns, (_EVENTS,))[_EVENTS] != "0"
    except OSError:
        return False
