"""A container's files, seen from outside: a descriptor of its root directory.

The descriptor is of a mount that is attached nowhere (open_tree(2)): nobody else
can see it, and it is gone when it is closed. A child takes it, because it has to
be in another mount namespace to do so, and hands it over a socket.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from linux.mounts import open_tree
from linux.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, setns, unshare
from runtime import init, reports, rootfs, terminal
from runtime.container import Descriptors, collect
from runtime.errors import ConflictError
from runtime.reports import Report
from runtime.rootfs import Rootfs


def running(handle: int, *, whole: bool) -> int:
    """The root of the container whose pid 1 is behind a pidfd.

    With `whole` also what is mounted in it, such as volumes and /proc; without,
    the bare file system.
    """

    def take() -> int:
        setns(handle, CLONE_NEWNS)
        return open_tree("/", recursive=whole)

    return _taken(take, {handle})


def resting(made_of: Rootfs) -> int:
    """The root of a container that does not run; its lock must be held as long as it is open."""

    def take() -> int:
        unshare(CLONE_NEWNS)
        mount("", "/", flags=MS_REC | MS_PRIVATE)
        rootfs.mount_overlay(made_of)
        return open_tree(made_of.mountpoint)

    return _taken(take, set())


def lower(made_of: Rootfs) -> int:
    """The root of a container's image alone, without what the container has changed in it."""

    def take() -> int:
        unshare(CLONE_NEWNS)
        mount("", "/", flags=MS_REC | MS_PRIVATE)
        # The mount point itself is empty: an overlay without an upper layer wants two.
        rootfs.mount_layers((*made_of.layers, made_of.mountpoint), made_of.mountpoint)
        return open_tree(made_of.mountpoint)

    return _taken(take, set())


def _taken(take: Callable[[], int], keep: set[int]) -> int:
    with Descriptors() as open_here:
        report, report_in = open_here.pipe()
        near, far = open_here.socketpair()
        pid = init.fork()
        if not pid:
            try:
                init.forget_parent({report_in, far, *keep})
                terminal.send(far, take())
            except BaseException as error:
                reports.send_error(report_in, error)
            finally:
                os._exit(0)
        open_here.close(report_in)
        open_here.close(far)
        try:
            Report(report).end()
        finally:
            collect(pid)
        root = terminal.receive(near)
    if root < 0:
        raise ConflictError("look into the container", "it just stopped")
    return root
