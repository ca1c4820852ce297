"""Records of a bare runtime's containers, on disk in the host, and checks of their processes.

The records exist because such a runtime stores neither network names nor addresses nor exited
containers.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.adapters.bare.cni import CniAttachment
from harness.adapters.protocol import ContainerInfo, Endpoint
from harness.adapters.support.program import ProgramBroken, ProgramRefused
from harness.model.plan import ContainerSpec, Publish
from harness.world import process
from linux.proc import process_born

HOME: Final = Path("/run/netmodes/bare")


@dataclass(frozen=True, slots=True)
class BareRecord:
    """Record of a container; the container runs while its pid 1 still has this `start_time`."""

    spec: ContainerSpec
    args: tuple[str, ...]
    is_complete: bool = False
    pid: int = 0
    start_time: int = 0
    endpoints: tuple[Endpoint, ...] = ()
    attached: tuple[str, ...] = ()
    """The networks to which the container is or may be connected, in the order eth0, eth1, …"""
    ports: tuple[Publish, ...] = field(default=())
    serial: str = field(default_factory=lambda: secrets.token_hex(6))
    """Value that distinguishes the container from others of the same name."""

    @property
    def alive(self) -> bool:
        """True while the container's pid 1 runs."""
        return bool(self.pid) and process_born(self.pid) == self.start_time


# --- what is on disk -------------------------------------------------------------


def names() -> list[str]:
    """Return the names of all containers."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(HOME / "containers"))
    return []


def bundle(name: str) -> Path:
    """Return the directory of a container's bundle and record."""
    return HOME / "containers" / name


def save(record: BareRecord) -> None:
    """Write a record atomically."""
    path = bundle(record.spec.name) / "record"
    draft = path.with_suffix(".new")
    draft.write_bytes(pickle.dumps(record))
    draft.rename(path)


def load(name: str) -> BareRecord:
    """Read a record; raise `ProgramRefused` if there is none."""
    try:
        record: BareRecord = pickle.loads((bundle(name) / "record").read_bytes())  # noqa: S301 # our own
    except FileNotFoundError:
        raise ProgramRefused(f"no such container: {name}") from None
    return record


def is_complete(name: str) -> bool:
    """Return True if the start of a container was completed, False if it was interrupted."""
    try:
        return load(name).is_complete
    except ProgramRefused:
        return False


def attachments(record: BareRecord, prefix: str) -> Iterator[CniAttachment]:
    """Yield the CNI attachments that a container has, or may have after an interrupted start.

    The container id for CNI is unique, as an engine's id is. Residue of a container is therefore
    not attributed to a later container with the same name. `prefix` is a folder that may have
    plugins.
    """
    home, own = bundle(record.spec.name), f"{record.spec.name}-{record.serial}"
    for number, network in enumerate(record.attached):
        yield CniAttachment(network, own, f"eth{number}", str(home / "netns"), home, prefix)


def facts(record: BareRecord) -> ContainerInfo:
    """Return the facts about a container from its record."""
    return ContainerInfo(
        id=record.spec.name,
        name=record.spec.name,
        pid=record.pid,
        running=record.alive,
        endpoints=record.endpoints,
        ports=record.ports,
    )


# --- processes ---------------------------------------------------------------------


def end_process(pid: int, grace: float) -> None:
    """End a container's pid 1, and wait until it has ended."""
    if not process.end(pid, grace):
        raise ProgramBroken(f"process {pid} did not end after SIGKILL")
