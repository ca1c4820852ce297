"""Connection tracking through ctnetlink: list, watch and delete flows.

Only the first packet of a flow traverses the nat rules; their decision applies to the flow until it
ends. When rules change, the runtime therefore deletes the flows that the new rules would translate
differently. Source: linux/netfilter/nfnetlink_conntrack.h.

pyroute2 is not used because it decodes every attribute of every flow. The runtime deletes flows
at every start and stop with published ports, and the leak guard reads them around every test.
"""

from __future__ import annotations

import contextlib
import errno
import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple

from linux.netlink import (
    NETLINK_NETFILTER,
    Netlink,
    NetlinkError,
    Request,
    attr,
    attributes,
    nest,
)
from linux.netns import NetNS, read_sysctls
from linux.rtnetlink import Address, address_family

_SUBSYSTEM: Final = 1
_GET, _DELETE, _GET_STATS, _ENTRIES = 1, 2, 5, 1
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18
_IP, _PROTOCOL = 1, 2
_SOURCES: Final = {4: 1, 6: 3}
_DESTINATIONS: Final = {4: 2, 6: 4}
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3


class FlowTuple(NamedTuple):
    """One direction of a flow; ports are 0 if the protocol has none."""

    source: Address
    destination: Address
    protocol: int
    source_port: int = 0
    destination_port: int = 0


class Flow(NamedTuple):
    """A flow: the addresses of its first packet, and the addresses that a reply arrives with.

    Without address translation `reply` is `original` reversed.
    """

    original: FlowTuple
    reply: FlowTuple
    handle: bytes
    """The attributes by which a request identifies the flow: tuple, zone and ID."""

    @property
    def addresses(self) -> set[Address]:
        """The addresses of both directions of the flow, before and after translation."""
        ends = (self.original, self.reply)
        return {item for end in ends for item in (end.source, end.destination)}


def port_mark(number: int) -> bytes:
    """Encode a destination port as a byte pattern for `matcher`."""
    return attr(_DESTINATION_PORT, number.to_bytes(2, "big"))


def protocol_mark(number: int) -> bytes:
    """Encode a protocol number as a byte pattern for `matcher`."""
    return attr(_NUMBER, bytes([number]))


def matcher(marks: Iterable[bytes]) -> Callable[[bytes], object]:
    """Return a function that searches the kernel's encoding of a flow for any of the patterns."""
    return re.compile(b"|".join(map(re.escape, marks)), re.DOTALL).search


class Conntrack:
    """The flows of one namespace; use it as a context manager, or `close` it."""

    def __init__(self, netns: NetNS | None = None) -> None:
        self._netlink = Netlink(netns, protocol=NETLINK_NETFILTER)

    def count(self) -> int:
        """Return the number of flows, which the kernel knows without a walk of its table."""
        request = Request(_SUBSYSTEM << 8 | _GET_STATS, 0, bytes(4), "count flows")
        (answer,) = self._netlink.ask(request)
        return int.from_bytes(dict(attributes(answer, 4))[_ENTRIES], "big")

    def all(self) -> list[Flow]:
        """Return every flow, IPv4 and IPv6; the kernel's walk of its table takes milliseconds."""
        return [read_flow(answer) for answer in self.raw()]

    def marked(self, *marks: bytes) -> list[Flow]:
        """Return the flows whose encoding contains any of the patterns; others are not decoded.

        A pattern is an address in network byte order, or the result of `port_mark` or
        `protocol_mark`. The bytes of a pattern may occur in other fields too, so the caller has to
        check the flows.
        """
        if not marks:
            return []
        return [read_flow(answer) for answer in filter(matcher(marks), self.raw())]

    def of(self, addresses: Collection[Address]) -> list[Flow]:
        """Return the flows that have one of these addresses, before or after translation."""
        found = self.marked(*(item.packed for item in addresses))
        return [flow for flow in found if not flow.addresses.isdisjoint(addresses)]

    def raw(self) -> Iterator[bytes]:
        """Iterate over the kernel's encodings of all flows."""
        if not self.count():
            return iter(())
        return iter(self._netlink.dump(_SUBSYSTEM << 8 | _GET, bytes(4), "list flows"))

    def has(self, body: bytes) -> bool:
        """Return True if a flow, given by its encoding, still exists; this walks no table."""
        flow = read_flow(body)
        request = Request(_SUBSYSTEM << 8 | _GET, 0, flow.handle, f"look up {flow.original}")
        try:
            (answer,) = self._netlink.ask(request)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return read_flow(answer).handle == flow.handle

    def forget(self, flows: Iterable[Flow]) -> None:
        """Delete flows; the next packet of each is again the first packet of a new flow."""
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
    """Decode a flow from the body of a reply or a notification."""
    found = dict(attributes(answer, 4))
    original, reply = _ends(found[_ORIGINAL]), _ends(found[_REPLY])
    head = struct.pack(">BBH", address_family(original.source.version), 0, 0)
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
_NEW, _DESTROYED = 1 << 8, 1 << 8 | 2
"""IPCTNL_MSG_CT_NEW and IPCTNL_MSG_CT_DELETE of the subsystem."""
_FLOWWATCH_ID: Final = 12
_FEW: Final = 256
"""Number of flows that can be looked up one by one in the time of a dump."""
_EVENTS: Final = "net.netfilter.nf_conntrack_events"


class FlowWatch:
    """A cache of a namespace's flows, updated by notifications.

    Close it, or use it as a context manager. Threads may share it; a forked child must not use
    it.

    The notifications are incomplete. The kernel does not announce the end of a flow that is older
    than the watch. It does not announce a new flow either if a bridge floods the first packet to
    its own host: br_nf_local_in in br_netfilter_hooks.c confirms the flow without an event. The
    cache size is therefore compared with the kernel's number of flows. If they differ, or if
    notifications were lost, all flows are read again.
    """

    def __init__(self, netns: NetNS) -> None:
        import threading  # commands that only delete flows do not need it

        self._known: dict[bytes, bytes] | None = None
        """Flows by ID; `None` when a dump is needed."""

        self._lock = threading.Lock()
        with contextlib.ExitStack() as stack:
            self._conntrack = stack.enter_context(Conntrack(netns))
            self._netlink = stack.enter_context(Netlink(netns, protocol=NETLINK_NETFILTER))
            self._announced = _announces(netns)
            if self._announced:
                self._netlink.join(_NEW_FLOWS)
                self._netlink.join(_ENDED_FLOWS)
                self._known = self._dump()
            self._unannounced = set(self._known or ())
            """IDs of flows that were not announced; their end may not be announced either."""
            self._resources = stack.pop_all()

    def marked(self, *marks: bytes) -> list[Flow]:
        """Return the flows of `Conntrack.marked`, and expired flows that the kernel still has."""
        if not marks:
            return []
        with self._lock:
            if not self._announced:
                return self._conntrack.marked(*marks)
            return [read_flow(body) for body in filter(matcher(marks), self._current())]

    def _current(self) -> Collection[bytes]:
        """Return the encodings of all flows."""
        known = self._complete()
        if known is None:
            before, self._known = self._known, self._dump()
            known = self._known
            if before is not None:
                self._unannounced |= known.keys() - before.keys()
            self._unannounced &= known.keys()
        return known.values()

    def _complete(self) -> dict[bytes, bytes] | None:
        """Return the cache if it is complete, `None` otherwise."""
        for _ in range(2):  # the second pass includes flows that ended during the first
            self._update()
            known = self._known
            if known is None or len(self._unannounced) > _FEW:
                return None
            for name in [
                item for item in self._unannounced if not self._conntrack.has(known[item])
            ]:
                self._remove(name)
            count = self._conntrack.count()
            # A flow that ended before the count would hide a new flow that was not announced.
            if not self._update() and len(known) == count:
                return known
        return None

    def _dump(self) -> dict[bytes, bytes]:
        return {_id(body): body for body in self._conntrack.raw()}

    def _remove(self, name: bytes) -> None:
        self._unannounced.discard(name)
        if self._known is not None:
            self._known.pop(name, None)

    def _update(self) -> bool:
        """Apply pending notifications, and return True if there were any."""
        while True:
            try:
                events = self._netlink.notifications()
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._known = None  # notifications were lost, so the rest is of no use
        if self._known is None:
            return True
        for kind, body in events:
            if kind == _NEW:
                self._known[_id(body)] = body
                self._unannounced.discard(_id(body))
            elif kind == _DESTROYED:
                self._remove(_id(body))
        return bool(events)

    def fileno(self) -> int:
        """Return the descriptor, which becomes readable when a notification arrives."""
        return self._netlink.fileno()

    def close(self) -> None:
        """Close the sockets."""
        self._resources.close()

    def __enter__(self) -> FlowWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _id(body: bytes) -> bytes:
    return dict(attributes(body, 4, (_FLOWWATCH_ID,)))[_FLOWWATCH_ID]


def _announces(netns: NetNS) -> bool:
    """Return True if the kernel supports flow events and the namespace's sysctl allows them."""
    try:
        return read_sysctls(netns, (_EVENTS,))[_EVENTS] != "0"
    except OSError:
        return False
