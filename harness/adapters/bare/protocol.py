"""Protocols of a bare runtime, which starts processes in namespaces, and of network backends.

A new runtime of this kind is a small file: it starts a container, ends what a signal to pid 1
does not end, and runs commands inside. A `NetworkBackend` connects its containers to networks:
CNI's plugins, or the runtime's own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from harness.adapters.protocol import Endpoint, NetworkInfo
from harness.model.plan import ContainerSpec, NetworkSpec

if TYPE_CHECKING:
    from harness.adapters.bare.store import BareRecord


@dataclass(frozen=True, slots=True)
class StartRequest:
    """The request to start a container.

    `home` is the container's directory, with the mount point `rootfs` and the files `hosts`,
    `hostname` and `resolv.conf`. `netns` is the path of a network namespace to join, `""` means
    a new one, `None` the host's. `endpoints` are to be made, or exist in `netns` already; `links`
    are their bridges in the host.
    """

    spec: ContainerSpec
    args: tuple[str, ...]
    home: Path
    netns: str | None
    endpoints: tuple[Endpoint, ...] = ()
    links: tuple[str | None, ...] = ()

    @property
    def name(self) -> str:
        """The name."""
        return self.spec.name

    @property
    def hostname(self) -> str:
        """The hostname."""
        return self.spec.hostname or self.spec.name

    @property
    def root(self) -> Path:
        """The mount point of the root file system."""
        return self.home / "rootfs"

    @property
    def log(self) -> Path:
        """The log file."""
        return self.home / "log"


class BareRuntime(Protocol):
    """A runtime that starts processes in namespaces. Its methods are called inside the host.

    It has to be picklable. `ProgramRefused` is an orderly refusal, `ProgramBroken` a failure.
    """

    def start(self, request: StartRequest) -> int:
        """Start a container and return its first process's pid in the host."""

    def forget(self, name: str, home: Path) -> None:
        """Remove the rest of a container that has ended or was started half-way."""

    def exec_words(self, name: str, pid: int) -> Sequence[str]:
        """Return the command prefix that runs a command in a container."""


@runtime_checkable
class StopsContainers(Protocol):
    """A `BareRuntime` whose containers cannot be ended by a signal to a process of the host."""

    def end(self, name: str, pid: int, grace: float) -> None:
        """End a container: SIGTERM, and SIGKILL after `grace` seconds, at once without any."""


@dataclass(frozen=True, slots=True)
class WiredNetns:
    """The result of `NetworkBackend.wire`: the endpoints, and the netns that has them.

    Without a `netns` the runtime creates one and configures the `endpoints` in it.
    """

    endpoints: tuple[Endpoint, ...]
    netns: str = ""


class NetworkBackend(Protocol):
    """Backend that connects containers to networks: a dataclass, called inside the host."""

    @property
    def prefix(self) -> str:
        """The folder in which its programs are looked for first."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that it needs."""

    def missing(self) -> list[str]:
        """Return the missing programs of the backend."""

    def begin(self) -> None:
        """Create the default network unless it exists."""

    def repair(self) -> None:
        """Repair the rules as documented after a flush of the host's firewall."""

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        """Create a network."""

    def facts(self, name: str) -> NetworkInfo:
        """Return the facts about a network; raise `ProgramRefused` if there is none."""

    def remove(self, name: str) -> None:
        """Remove a network without containers."""

    def checked(self, spec: ContainerSpec) -> ContainerSpec:
        """Return the spec with open values chosen; raise `ProgramRefused` for impossible ones."""

    def wire(self, record: BareRecord) -> WiredNetns:
        """Connect a container to the networks of its record, before it starts."""

    def unwire(self, record: BareRecord) -> None:
        """Disconnect a container that has ended; also after an interrupted `wire`."""
