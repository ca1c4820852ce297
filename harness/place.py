"""A network namespace as a test sees it: what is in it, and sockets inside it.

A place opens its namespace anew for every look and lets go of it at once. The
harness never keeps a container's namespace alive: whether it goes away with the
container is one of the things that are tested.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.model import Family
from harness.packets.capture import Capture, Tap
from harness.probe import own_stack
from harness.probe.remote import by_kernel, seen_from_host
from harness.topology import Address, Interface
from linux import netstate, sysctl
from linux.netlink import Netlink
from linux.netns import NetNS

if TYPE_CHECKING:
    from harness.world.dumps import Dumps


@dataclass(frozen=True, slots=True)
class Place:
    """A named network namespace. `open` returns a fresh handle, which the caller closes."""

    name: str
    open: Callable[[], NetNS]
    watched: Callable[[], Dumps | None] = lambda: None
    """What somebody keeps open to look at it again and again, if anybody does."""

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the namespace: equal for two places in the same one."""
        with self.open() as space:
            return space.id

    def links(self) -> dict[str, netstate.Link]:
        """Every interface by name, `lo` included."""
        with self.open() as space, Netlink(space) as netlink:
            found = {link.name: link for link in netstate.links(netlink)}
            return own_stack.with_cables(found, space) if own_stack.has(space) else found

    def cable(self, link: str) -> netstate.Link:
        """An interface as the host's kernel has it: the packets of another stack too go by that."""
        with (
            self.open() as space,
            contextlib.ExitStack() as stack,
            Netlink(seen_from_host(space, stack)) as netlink,
        ):
            return netstate.link(netlink, link)

    def interfaces(self, link: str | None = None) -> list[Interface]:
        """Every address with its prefix, or those of one link; without link-local ones.

        Those of IPv4 come first, as the kernel has them: another stack may have them in any order.
        """
        with self.open() as space, Netlink(space) as netlink:
            index = netstate.link(netlink, link).ifindex if link else None
            found = netstate.addresses(netlink, index=index)
        usable = (item.address for item in found if not item.address.is_link_local)
        return sorted(usable, key=lambda item: item.version)

    def address(self, family: Family) -> Address | None:
        """The first address that others can use, `None` where there is none."""
        return first_address(self.interfaces(), family)

    def routes(self) -> list[netstate.Route]:
        """The routes of the main table, of every kind, both families.

        Without those that IPv6 has on every link by itself.
        """
        with self.open() as space, Netlink(space) as netlink:
            found = netstate.routes(netlink, every_kind=True)
            return own_stack.of_main_table(found) if own_stack.has(space) else found

    def neighbours(self) -> list[netstate.Neighbour]:
        """Every neighbour entry, both families."""
        with self.open() as space, Netlink(by_kernel(space)) as netlink:
            return list(netstate.neighbours(netlink))

    def sysctl(self, key: str) -> str:
        """One value under `net.`; `FileNotFoundError` when there is no such key."""
        with self.open() as space:
            if own_stack.has(space):
                return own_stack.sysctl(space, key)
            return sysctl.read(space, [key])[key]

    def tune(self, values: Mapping[str, str | int]) -> None:
        """Set sysctls under `net.` inside; `OSError` names the one that is refused."""
        with self.open() as space:
            sysctl.write(space, values)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket inside; it stays usable, and keeps the namespace alive, until closed."""
        with self.open() as space:
            return space.socket(family, kind, protocol)

    @contextmanager
    def capture(self, link: str = "") -> Iterator[Capture]:
        """Every frame that passes one interface, or all of them, while the body runs."""
        with (
            self.open() as space,
            contextlib.ExitStack() as stack,
            Tap(seen_from_host(space, stack), link, place=self.name) as tap,
            Capture([tap]) as wire,
        ):
            yield wire


def fixed(name: str, space: NetNS, watched: Callable[[], Dumps | None] = lambda: None) -> Place:
    """A place on a namespace that somebody else keeps open, such as the world's own."""
    return Place(name, lambda: NetNS(os.dup(space.fd)), watched)


def first_address(interfaces: Iterable[Interface], family: Family) -> Address | None:
    """The first address of a family that others can use, `None` where there is none."""
    own = (item.ip for item in interfaces if item.version == family and not item.ip.is_loopback)
    return next(own, None)
