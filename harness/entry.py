"""Ways into a container's network namespace: a process started inside, a name in the host.

Whatever the way, it must lead to the same namespace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from harness.container import Container
from harness.place import Place
from harness.probe.remote import by_kernel
from harness.world.host import Host
from linux.netns import NetNS
from linux.syscalls import MS_BIND, mount, umount

NAMES: Final = "/run/netns"
"""Where ip-netns(8) keeps the names of network namespaces."""


class View(NamedTuple):
    """What a process inside is shown: its network namespace's inode, and the interfaces."""

    netns: int
    interfaces: frozenset[str]


def view(container: Container) -> View:
    """Start processes inside through the runtime and have the kernel tell them where they are.

    Raises `AssertionError` with their words when they cannot, and `OwnStack` where their kernel
    is not the one that has the namespace.
    """
    with container.net.open() as space:
        by_kernel(space)
    link = _said(container, "readlink", "/proc/self/ns/net")  # net:[4026531840]
    table = _said(container, "cat", "/proc/net/dev")  # two lines of heading, then "  eth0: …"
    names = frozenset(line.partition(":")[0].strip() for line in table.splitlines()[2:])
    return View(int(link.strip().removeprefix("net:[").removesuffix("]")), names)


def _said(container: Container, *argv: str) -> str:
    done = container.exec(*argv)
    assert done.returncode == 0, f"{' '.join(argv)} in {container.name}: {done}"
    return done.stdout


@contextlib.contextmanager
def named(host: Host, container: Container) -> Iterator[Place]:
    """Give a container's network namespace a name in the host, as `ip netns attach` does.

    By its pid, as the runtime reports it. The place is entered by the name.
    """
    path = f"{NAMES}/{container.name}"
    host.call(_give_name, container.facts().pid, path)
    try:
        yield Place(container.name, lambda: NetNS.at(f"/proc/{host.pid}/root{path}"))
    finally:
        host.call(_take_name, path)


def _give_name(pid: int, path: str) -> None:
    os.makedirs(NAMES, exist_ok=True)
    with open(path, "xb"):
        mount(f"/proc/{pid}/ns/net", path, flags=MS_BIND)


def _take_name(path: str) -> None:
    umount(path)
    os.unlink(path)
