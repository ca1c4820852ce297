"""Frames that wait in the queue of a macvlan's parent.

A broadcast that arrives at the parent of macvlan links is handed to them by a work item of
the kernel, whenever that gets to run: behind the backlog and uncounted. The queue is first
in, first out, so a broadcast of our own that is sent behind the probes, and has come out at
one of the links, tells that all before it came out as well (drivers/net/macvlan.c).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from linux import netstate
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.netstate import Link

_KINDS: Final = frozenset({"macvlan", "macvtap"})
_ETHERTYPE: Final = 0x88B5
"""Local experimental (IEEE 802): no kernel does anything with it."""
_HEADER: Final = b"\xff" * 6 + bytes.fromhex("020000000001") + struct.pack("!H", _ETHERTYPE)

Links = Mapping[NetNS, Sequence[Link]]
Port = tuple[NetNS, str]
"""An interface: its namespace and name."""


class Way(NamedTuple):
    """From the far end of a parent's cable to one of its links, and whom a broadcast meets."""

    source: Port
    sink: Port
    passed: frozenset[Port]


class Control:
    """A broadcast through the queue of one parent. `TimeoutError` when it does not come out."""

    def __init__(self, way: Way, *, bound: float) -> None:
        self.passed = way.passed
        """The interfaces at which each call counts for one packet."""
        self._mouth, self._ear = _opened(way.source), _opened(way.sink)
        self._ear.settimeout(bound)

    def __call__(self) -> None:
        """Send it and wait until it has come out."""
        frame = _HEADER + os.urandom(46)
        self._mouth.send(frame)
        while self._ear.recv(len(frame)) != frame:
            pass

    def close(self) -> None:
        """Close both sockets."""
        self._mouth.close()
        self._ear.close()


def ways(links: Links) -> Iterator[Way]:
    """A way through each parent's queue, where the parent is a veth whose other end is here."""
    children: dict[tuple[NetNS, int], list[Port]] = {}
    for space, found in links.items():
        for link in found:
            if link.kind in _KINDS and link.running and link.peer is not None:
                owner = _namespace(space, link.peer_nsid, links)
                if owner is not None:
                    children.setdefault((owner, link.peer), []).append((space, link.name))
    for (owner, index), ports in children.items():
        parent = _link(links, owner, index)
        if parent is None or parent.kind != "veth" or parent.peer is None:
            continue
        beyond = _namespace(owner, parent.peer_nsid, links)
        far = beyond and _link(links, beyond, parent.peer)
        if beyond and far:
            source = beyond, far.name
            yield Way(source, ports[0], frozenset({source, (owner, parent.name), *ports}))


def _link(links: Links, space: NetNS, index: int) -> Link | None:
    return next((link for link in links[space] if link.ifindex == index), None)


def _namespace(space: NetNS, nsid: int | None, links: Links) -> NetNS | None:
    """Which of the namespaces another one means by a number; itself, without one."""
    if nsid is None:
        return space
    with Netlink(space) as netlink:
        return next((other for other in links if netstate.nsid(netlink, other) == nsid), None)


def _opened(port: Port) -> socket.socket:
    space, name = port
    opened = space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.bind((name, _ETHERTYPE))
    return opened
