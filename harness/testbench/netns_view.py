"""A network namespace as a test sees it: its state, and sockets inside it.

A view opens the namespace for each query and closes it at once. The harness never keeps a
container's namespace alive, because tests check whether the namespace ends with its container.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from harness.model.plan import Family
from harness.model.topology import Address, Interface
from harness.probe import remote, sockets
from harness.probe.remote import by_kernel
from harness.probe.sockets import seen_from_host
from harness.testbench.packets.capture import Capture, Tap
from harness.world.build import World
from harness.world.state.netlink_dump import Dumps
from harness.world.state.snapshot import Snapshot
from linux import netns, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS


@dataclass(frozen=True, slots=True)
class NetnsView:
    """View of a network namespace by name; `open` returns a new handle, which the caller closes."""

    name: str
    open: Callable[[], NetNS]
    watched: Callable[[], Dumps | None] = lambda: None
    """Netlink sockets that are kept open for repeated dumps, if any."""

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the namespace, which are equal for two views of one namespace."""
        with self.open() as space:
            return space.id

    def links(self) -> dict[str, rtnetlink_dump.Link]:
        """Return every interface by name, `lo` included."""
        with self.open() as space, Netlink(space) as netlink:
            found = {link.name: link for link in rtnetlink_dump.links(netlink)}
            return remote.with_cables(found, space) if sockets.has_own_stack(space) else found

    def kernel_link(self, link: str) -> rtnetlink_dump.Link:
        """Return an interface as the host's kernel, not a user-space network stack, reports it."""
        with (
            self.open() as space,
            contextlib.ExitStack() as stack,
            Netlink(seen_from_host(space, stack)) as netlink,
        ):
            return rtnetlink_dump.link(netlink, link)

    def interfaces(self, link: str | None = None) -> list[Interface]:
        """Return all addresses with their prefixes, or those of one link, except link-local ones.

        IPv4 addresses come first, as the kernel lists them; a user-space stack may have another
        order.
        """
        with self.open() as space, Netlink(space) as netlink:
            index = rtnetlink_dump.link(netlink, link).ifindex if link else None
            found = rtnetlink_dump.addresses(netlink, index=index)
        usable = (item.address for item in found if not item.address.is_link_local)
        return sorted(usable, key=lambda item: item.version)

    def address(self, family: Family) -> Address | None:
        """Return the first address of a family that is not a loopback address, or `None`."""
        return first_address(self.interfaces(), family)

    def routes(self) -> list[rtnetlink_dump.Route]:
        """Return the main table's routes of every kind, for IPv4 and IPv6.

        The IPv6 routes that every link has by default are left out: those for link-local and
        multicast addresses.
        """
        with self.open() as space, Netlink(space) as netlink:
            found = rtnetlink_dump.routes(netlink, every_kind=True)
            return remote.of_main_table(found) if sockets.has_own_stack(space) else found

    def neighbours(self) -> list[rtnetlink_dump.Neighbour]:
        """Return every neighbour entry, for IPv4 and IPv6."""
        with self.open() as space, Netlink(by_kernel(space)) as netlink:
            return list(rtnetlink_dump.neighbours(netlink))

    def sysctl(self, key: str) -> str:
        """Return the value of a sysctl under `net.`.

        Raises `FileNotFoundError` for an unknown key.
        """
        with self.open() as space:
            if sockets.has_own_stack(space):
                return remote.sysctl(space, key)
            return netns.read_sysctls(space, [key])[key]

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the namespace's kernel state once no address is tentative.

        Raises `UserspaceStack` for a container with a user-space network stack.
        """
        with self.open() as space:
            return Snapshot.of(by_kernel(space), self.watched())

    def tune(self, values: Mapping[str, str | int]) -> None:
        """Set sysctls under `net.` in the namespace; an `OSError` names a refused one."""
        with self.open() as space:
            netns.write_sysctls(space, values)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a socket in the namespace; an open socket keeps the namespace alive."""
        with self.open() as space:
            return space.socket(family, kind, protocol)

    @contextmanager
    def capture(self, link: str = "") -> Iterator[Capture]:
        """Capture every frame that passes one interface while the body runs.

        Without `link` the frames of all interfaces are captured.
        """
        with (
            self.open() as space,
            contextlib.ExitStack() as stack,
            Tap(seen_from_host(space, stack), link, owner=self.name) as tap,
            Capture([tap]) as wire,
        ):
            yield wire


def fixed(name: str, space: NetNS, watched: Callable[[], Dumps | None] = lambda: None) -> NetnsView:
    """Return a view of a namespace that the caller keeps open, such as one of the world."""
    return NetnsView(name, lambda: NetNS(os.dup(space.fd)), watched)


@contextmanager
def iproute(space: NetNS) -> Iterator[Any]:
    """Open pyroute2's `IPRoute`, which has no type hints, in a namespace.

    A request that the kernel refuses raises `OSError`.
    """
    from pyroute2 import IPRoute  # takes a tenth of a second to import
    from pyroute2.netlink.exceptions import NetlinkError

    with space.entered():
        opened = IPRoute(ext_ack=True, strict_check=True)
    with opened:
        try:
            yield opened
        except NetlinkError as error:
            raise OSError(*error.args) from error


def view_of(world: World, name: str) -> NetnsView:
    """Return a view of a namespace of the world, such as `HOST` or `INTERNET`."""
    return fixed(name, world.namespaces[name], lambda: world.watched.get(name))


def first_address(interfaces: Iterable[Interface], family: Family) -> Address | None:
    """Return the first address of a family that is not a loopback address, or `None`."""
    own = (item.ip for item in interfaces if item.version == family and not item.ip.is_loopback)
    return next(own, None)


BOUND: Final = 5.0
"""Bound on the kernel's cleanup of a namespace, in seconds."""

_INTERVAL: Final = 0.02
"""Seconds between two checks, for conditions without a notification, such as a process's end."""
_GROUPS: Final = 0x1 | 0x10 | 0x100 | 0x40 | 0x400
"""RTMGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR, _IPV4_ROUTE, _IPV6_ROUTE: rtnetlink(7)."""


def until(
    view: NetnsView, condition: Callable[[], bool], what: str, *, bound: float = BOUND
) -> None:
    """Wait until `condition` is true; raise `TimeoutError` after `bound` seconds.

    The condition is checked whenever a link, an address or a route of `view` changes (rtnetlink),
    and at intervals. `what` names the condition in the error.
    """
    deadline = time.monotonic() + bound
    with view.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as monitor:
        monitor.bind((0, _GROUPS))
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{what}: not yet true in {view.name} after {bound} s")
            if select.select([monitor], [], [], min(left, _INTERVAL))[0]:
                with contextlib.suppress(OSError):  # an overrun (ENOBUFS) is a change too
                    monitor.recv(1 << 16)


CONNECT_BOUND: Final = 3.0
"""Bound on the wait of a connect for room in the listener's queue, in seconds."""

_SO_ACCEPTCON: Final = 1 << 16
_PREFIX: Final = b" @"


def reachable_abstract_sockets(owner: NetnsView, caller: NetnsView) -> set[str]:
    """Return the abstract sockets of a netns to which a process in another netns can connect.

    These are sockets that listen or receive datagrams. They are named as the kernel prints them,
    with `@` for NUL bytes (proc_net_unix). Raises `UserspaceStack` if the caller has a separate
    kernel with its own abstract sockets.
    """
    with caller.open() as space:
        by_kernel(space)
    with owner.open() as space, space.entered(), open("/proc/thread-self/net/unix", "rb") as table:
        rows = [line.rstrip(b"\n").partition(_PREFIX) for line in table]
    found = set()
    for columns, _, shown in (row for row in rows if row[1]):
        _, _, _, flags, kind, *_ = columns.split()  # Num RefCount Protocol Flags Type St Inode
        if int(kind, 16) != socket.SOCK_DGRAM and not int(flags, 16) & _SO_ACCEPTCON:
            continue
        for name in {shown, shown.replace(b"@", b"\0")}:
            with caller.socket(socket.AF_UNIX, int(kind, 16)) as opened:
                opened.settimeout(CONNECT_BOUND)
                with contextlib.suppress(ConnectionRefusedError, PermissionError):
                    opened.connect(b"\0" + name)
                    found.add(shown.decode(errors="surrogateescape"))
    return found
