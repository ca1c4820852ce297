"""Handles on network namespaces: create, find, enter and compare; and sysctls of a namespace.

A handle is an open file descriptor, so the namespace exists at least as long as the handle, even
without processes. To enter a namespace moves only the calling *thread*. A socket stays in the
namespace in which it was opened, so one process can have sockets in a thousand namespaces.

pyroute2 is not used. Its `NetNS` is a netlink socket in a namespace and not a handle on the
namespace, and it has no functions for sysctls.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from linux.syscalls import CLONE_NEWNET, setns, unshare

if TYPE_CHECKING:
    import socket


_OWN = "/proc/thread-self/ns/net"


class NetNS:
    """Handle on a network namespace; close it, or use it as a context manager."""

    __slots__ = ("fd", "id")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        status = os.fstat(fd)
        self.id = (status.st_dev, status.st_ino)
        """Device and inode: equal for two handles on the same namespace."""

    @classmethod
    def own(cls) -> Self:
        """Return the namespace of the calling thread."""
        return cls.at(_OWN)

    @classmethod
    def at(cls, path: str) -> Self:
        """Return the namespace behind a file such as `/proc/PID/ns/net` or `/run/netns/NAME`."""
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def new(cls) -> Self:
        """Create a namespace and return its handle; the calling thread stays in its namespace."""
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            unshare(CLONE_NEWNET)
            try:
                return cls.own()
            finally:
                setns(home, CLONE_NEWNET)
        finally:
            os.close(home)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run the body of the `with` statement with the calling thread inside this namespace."""
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self.fd, CLONE_NEWNET)
            try:
                yield
            finally:
                setns(home, CLONE_NEWNET)
        finally:
            os.close(home)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a socket, which belongs to this namespace until it is closed."""
        import socket  # importing it takes milliseconds, and most handles open no socket

        with self.entered():
            return socket.socket(family, kind, protocol)

    def close(self) -> None:
        """Close the handle; closing it again has no effect."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NetNS) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<NetNS net:[{self.id[1]}]>"


def sysctl_path(key: str) -> str:
    """Return the path of a sysctl's file below /proc/sys."""
    # Dots separate; an interface name with a dot is written with a slash (sysctl.d(5)).
    return "/proc/sys/" + key.translate(str.maketrans("./", "/."))


def write_sysctls(netns: NetNS, values: Mapping[str, str | int]) -> None:
    """Set sysctls such as `net.ipv4.ip_forward`; `OSError` names the refused sysctl.

    An empty value clears a sysctl that is a list or a mask.
    """
    with netns.entered():
        for key, value in values.items():
            try:
                with open(sysctl_path(key), "w", encoding="ascii") as file:
                    file.write(f"{value}\n")
            except OSError as error:  # an error of write(2) does not name the file
                raise OSError(error.errno, f"{key} = {value}: {error.strerror}") from error


def read_sysctls(netns: NetNS, keys: Iterable[str]) -> dict[str, str]:
    """Return the values of sysctls, with white space folded; `OSError` names a missing sysctl."""
    found = {}
    with netns.entered():
        for key in keys:
            with open(sysctl_path(key), encoding="ascii") as file:
                found[key] = " ".join(file.read().split())
    return found
