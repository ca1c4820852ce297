"""What is known of the containers of a bare runtime, on disk in the host; and their processes.

Such a runtime keeps no names of networks, no addresses, and nothing of who has ended.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.adapters.bare.cni import CniAttachment
from harness.adapters.protocol import ContainerInfo, Endpoint
from harness.adapters.support.program import ProgramBroken, ProgramRefused
from harness.model.plan import ContainerSpec, Publish
from linux import proc

HOME: Final = Path("/run/netmodes/bare")
_KILL: Final = 10.0
"""Seconds after SIGKILL within which a process must have ended."""


@dataclass(frozen=True, slots=True)
class BareRecord:
    """What is known of a container. It runs while its pid 1 is the process born at `born`."""

    spec: ContainerSpec
    args: tuple[str, ...]
    complete: bool = False
    pid: int = 0
    born: int = 0
    endpoints: tuple[Endpoint, ...] = ()
    attached: tuple[str, ...] = ()
    """The networks that it has been put on, or may have been, `eth0` first."""
    ports: tuple[Publish, ...] = field(default=())
    serial: str = field(default_factory=lambda: secrets.token_hex(6))
    """What tells it from every other container that has ever had its name."""

    @property
    def alive(self) -> bool:
        """Whether its pid 1 runs."""
        return bool(self.pid) and born(self.pid) == self.born


# --- what is on disk -------------------------------------------------------------


def names() -> list[str]:
    """Every container's name."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(HOME / "containers"))
    return []


def bundle(name: str) -> Path:
    """The directory of a container: its bundle, and what is known of it."""
    return HOME / "containers" / name


def save(record: BareRecord) -> None:
    """Write a record, whole or not at all."""
    path = bundle(record.spec.name) / "record"
    draft = path.with_suffix(".new")
    draft.write_bytes(pickle.dumps(record))
    draft.rename(path)


def load(name: str) -> BareRecord:
    """Read a record; `ProgramRefused` where there is none."""
    try:
        record: BareRecord = pickle.loads((bundle(name) / "record").read_bytes())  # noqa: S301 # our own
    except FileNotFoundError:
        raise ProgramRefused(f"there is no container {name}") from None
    return record


def complete(name: str) -> bool:
    """Whether a container was begun and finished."""
    try:
        return load(name).complete
    except ProgramRefused:
        return False


def attachments(record: BareRecord, prefix: str) -> Iterator[CniAttachment]:
    """The interfaces that a container has, or may have; `prefix` is where plugins may be.

    To CNI a container is known by an id that no other one ever had, as an engine's is: what has
    been left of one is not taken for the next one's of that name.
    """
    home, own = bundle(record.spec.name), f"{record.spec.name}-{record.serial}"
    for number, network in enumerate(record.attached):
        yield CniAttachment(network, own, f"eth{number}", str(home / "netns"), home, prefix)


def facts(record: BareRecord) -> ContainerInfo:
    """A record in the words of the protocol."""
    return ContainerInfo(
        id=record.spec.name,
        name=record.spec.name,
        pid=record.pid,
        running=record.alive,
        endpoints=record.endpoints,
        ports=record.ports,
    )


# --- processes ---------------------------------------------------------------------


def born(pid: int) -> int:
    """When a process was started; 0 when it has ended, a zombie included."""
    return proc.born(f"/proc/{pid}")


def finish(pid: int, grace: float) -> None:
    """End a container's pid 1, and wait until it has ended."""
    handle = os.pidfd_open(pid)
    try:
        if grace:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if select.select([handle], [], [], grace)[0]:
                return
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], _KILL)[0]:
            raise ProgramBroken(f"process {pid} has not ended {_KILL:g} s after SIGKILL")
    finally:
        os.close(handle)
