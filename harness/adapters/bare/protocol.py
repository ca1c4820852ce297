"""Protocols of bare runtimes, which only start processes in namespaces, and of network backends.

The driver of a new bare runtime is a small file. The driver starts a container, removes what is
left after a signal has ended pid 1, and runs commands in containers. A `NetworkBackend` connects
the containers to networks, with CNI's plugins or with another tool.
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
    `hostname` and `resolv.conf`. `netns` is the path of a network namespace to join; `""` means a
    new namespace, `None` the host's. The runtime makes the `endpoints`, unless they exist in
    `netns` already. `links` are the bridges of these endpoints in the host.
    """

    spec: ContainerSpec
    args: tuple[str, ...]
    home: Path
    netns: str | None
    endpoints: tuple[Endpoint, ...] = ()
    links: tuple[str | None, ...] = ()

    @property
    def name(self) -> str:
        """The container's name."""
        return self.spec.name

    @property
    def hostname(self) -> str:
        """The container's hostname."""
        return self.spec.hostname or self.spec.name

    @property
    def root(self) -> Path:
        """The mount point of the container's root file system."""
        return self.home / "rootfs"

    @property
    def log(self) -> Path:
        """The path of the container's log file."""
        return self.home / "log"


class BareRuntime(Protocol):
    """Runtime that only starts processes in namespaces.

    Its methods are called inside the host, so the object has to be picklable. They raise
    `ProgramRefused` for an orderly refusal and `ProgramBroken` for a failure.
    """

    def start(self, request: StartRequest) -> int:
        """Start a container and return its first process's pid in the host."""

    def forget(self, name: str, home: Path) -> None:
        """Remove what is left of a container that has ended, or whose start was interrupted."""

    def exec_words(self, name: str, pid: int) -> Sequence[str]:
        """Return the command prefix that runs a command in a container."""


@runtime_checkable
class StopsContainers(Protocol):
    """A `BareRuntime` that stops a container itself, because a signal to a host process cannot."""

    def end(self, name: str, pid: int, grace: float) -> None:
        """End a container: send SIGTERM, and SIGKILL `grace` seconds later."""


@dataclass(frozen=True, slots=True)
class WiredNetns:
    """Result of `NetworkBackend.wire`: the endpoints of a container, and the netns that has them.

    If `netns` is missing, the runtime creates a netns and configures the `endpoints` in it.
    """

    endpoints: tuple[Endpoint, ...]
    netns: str = ""


class NetworkBackend(Protocol):
    """Backend that connects containers to networks: a dataclass with methods run in the host."""

    @property
    def prefix(self) -> str:
        """The folder in which the backend's programs are searched first."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that the backend needs."""

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
        """Return the container's spec with all open values chosen.

        Raises `ProgramRefused` for impossible values.
        """

    def wire(self, record: BareRecord) -> WiredNetns:
        """Connect a container to the networks of its record, before it starts."""

    def unwire(self, record: BareRecord) -> None:
        """Disconnect a container that has ended, or whose `wire` was interrupted."""
