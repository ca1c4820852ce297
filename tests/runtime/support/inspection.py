"""State of the host and the kernel, read without mydocker."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.nftables import Nft, Table
from runtime.engine import Engine
from runtime.image.store import BASE
from runtime.records import ContainerRecord

WITHIN = 10.0
"""Timeout in seconds for a condition, on the slowest machine."""


def loaded_images(engine: Engine) -> list[str]:
    """Return the names of the images in order, except `base`."""
    return sorted(item.name for item in engine.images.all() if item.name != BASE)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true that the kernel does not report."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not after {WITHIN} s: {what}")
        os.sched_yield()


def netns(container: ContainerRecord) -> NetNS:
    """Return the netns of a running container."""
    return NetNS.at(f"/proc/{container.state.pid}/ns/net")


def namespace(container: ContainerRecord | None, kind: str) -> str:
    """Return the identity of a container's namespace, or (`None`) of the caller's own."""
    return os.readlink(f"/proc/{container.state.pid if container else 'thread-self'}/ns/{kind}")


def links(space: NetNS | None = None) -> dict[str, rtnetlink_dump.Link]:
    """Return the interfaces of a netns, or of the caller's, by name."""
    with Netlink(space) as netlink:
        return {link.name: link for link in rtnetlink_dump.links(netlink)}


class Network(NamedTuple):
    """Network state of a netns."""

    links: list[tuple[str, str, bool]]
    addresses: list[str]
    routes: list[tuple[str, str]]


def network(space: NetNS | None = None) -> Network:
    """Return links, addresses and routes, without link-local addresses.

    A link is (name, MAC, up), a route (destination, gateway).
    """
    with Netlink(space) as netlink:
        return Network(
            sorted((link.name, link.mac, link.up) for link in rtnetlink_dump.links(netlink)),
            sorted(
                str(item.address)
                for item in rtnetlink_dump.addresses(netlink)
                if not item.address.is_link_local
            ),
            sorted(
                (str(item.destination), str(item.via)) for item in rtnetlink_dump.routes(netlink)
            ),
        )


def tables() -> list[Table]:
    """Return the nft tables of the caller's netns."""
    with Nft() as nft:
        return nft.tables()


def processes() -> set[int]:
    """Return every process of the caller's pid namespace."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def processes_titled(title: bytes) -> set[int]:
    """Return the processes in the caller's network namespace that have a title."""
    found = set()
    for pid in processes():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            own = os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/thread-self/ns/net")
            if words[0] == title and own:
                found.add(pid)
    return found


def children(parent: int) -> set[int]:
    """Return the children of a process, zombies included (proc_pid_stat(5), field 4)."""
    found = set()
    for pid in processes():
        with suppress(FileNotFoundError, ProcessLookupError):
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            if int(stat.rpartition(b")")[2].split()[1]) == parent:
                found.add(pid)
    return found


def opened(pid: int) -> set[str]:
    """Return the open files of a process: paths, and the kinds of files without a path."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # just closed
            found.add(os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0])
    return found


def family(root: Path) -> set[int]:
    """Return the processes that use the state directory, as other test workers share this host."""
    return {pid for pid in processes() if _uses(pid, str(root))}


def _uses(pid: int, root: str) -> bool:
    """Return True if the process names the directory: in command line, mounts or descriptors."""
    try:
        texts = [Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "mountinfo")]
        if any(root in text for text in texts):
            return True
        held = f"/proc/{pid}/fd"
        return any(root in os.readlink(f"{held}/{number}") for number in os.listdir(held))
    except OSError:  # the process has just ended
        return False


class Everything(NamedTuple):
    """State of the host that a container could leave changed."""

    network: Network
    tables: list[Table]
    mounts: int
    processes: set[int]
    descriptors: set[str]
    files: list[str]


def descriptors() -> list[str]:
    """Return the caller's descriptors, except the pidfds of an engine's watched containers."""
    return [number for number in os.listdir("/proc/self/fd") if _is_kept(number)]


def _is_kept(descriptor: str) -> bool:
    try:
        text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    except FileNotFoundError:  # the descriptor of the directory listing
        return False
    pids = [line for line in text.splitlines() if line.startswith("Pid:")]
    return not pids or int(pids[0].split()[1]) < 0  # of an ended process (pidfd_open(2))


def everything(root: Path) -> Everything:
    """Return the state of the host; two equal states mean that nothing was left in between."""
    return Everything(
        network(),
        tables(),
        mounts(root),
        family(root),
        set(descriptors()),
        sorted(str(path.relative_to(root)) for path in root.rglob("*")),
    )


def mounts(root: Path) -> int:
    """Return the number of mounts that name `root`.

    Other test workers share this mount namespace.
    """
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(str(root) in line for line in lines)


@contextmanager
def nothing_left(root: Path) -> Iterator[None]:
    """Check that the body leaves no link, address, rule, mount, process, descriptor or file."""
    gc.collect()  # or descriptors of earlier tests' engines are closed meanwhile
    before = everything(root)
    yield
    # A process that was ending before may be gone meanwhile.
    until(lambda: family(root) <= before.processes, "the processes have ended")
    after = everything(root)._replace(processes=before.processes)
    for name, was, now in zip(Everything._fields, before, after, strict=True):
        assert now == was, f"{name} differ: {was} before, {now} after"
