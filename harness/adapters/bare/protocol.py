"""What a runtime has to do that only makes processes in namespaces; the rest is the engine's.

A new one of this kind costs a small file: how a container is started, what else there is to
end, and how a command is run inside. Who puts it on networks is a `NetworkBackend`, which goes with
every such runtime: CNI's plugins, or what a runtime has of its own.
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
    """A container that is to be started.

    `home` is a directory of its own, in which `rootfs` is mounted and the files `hosts`,
    `hostname` and `resolv.conf` stand. `netns` is the path of a network namespace to join,
    `""` asks for a new one, `None` for the host's. `endpoints` is what it is to have on the
    networks, or has in `netns` already, `links` the bridges of these in the host.
    """

    spec: ContainerSpec
    args: tuple[str, ...]
    home: Path
    netns: str | None
    endpoints: tuple[Endpoint, ...] = ()
    links: tuple[str | None, ...] = ()

    @property
    def name(self) -> str:
        """What it is called."""
        return self.spec.name

    @property
    def hostname(self) -> str:
        """What it is to call itself."""
        return self.spec.hostname or self.spec.name

    @property
    def root(self) -> Path:
        """Where its files are mounted."""
        return self.home / "rootfs"

    @property
    def log(self) -> Path:
        """Where it writes."""
        return self.home / "log"


class BareRuntime(Protocol):
    """A runtime that makes processes in namespaces. All of it is called inside the host.

    It has to be picklable. `Refused` is an orderly no, `Broken` whatever it must not do.
    """

    def start(self, order: StartRequest) -> int:
        """Start a container; the pid of its first process, in the host."""

    def forget(self, name: str, home: Path) -> None:
        """Take away what there may still be of a container that was ended, or half started."""

    def exec_words(self, name: str, pid: int) -> Sequence[str]:
        """The words before a command that is to run in a container."""


@runtime_checkable
class StopsContainers(Protocol):
    """A `BareRuntime` runtime whose containers are no processes of the host's, each by itself."""

    def end(self, name: str, pid: int, grace: float) -> None:
        """End a container: SIGTERM, and SIGKILL after `grace` seconds, at once without any."""


@dataclass(frozen=True, slots=True)
class WiredNetns:
    """What came of putting a container on networks: a namespace that is so, and what is in it.

    Without a `netns` the runtime is to make it, and to put there what `endpoints` say.
    """

    endpoints: tuple[Endpoint, ...]
    netns: str = ""


class NetworkBackend(Protocol):
    """Who puts containers on networks: a dataclass, whose verbs are called inside the host."""

    @property
    def prefix(self) -> str:
        """The folder in which its programs are looked for first."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that bring what it needs."""

    def missing(self) -> list[str]:
        """What it needs and this machine has not."""

    def begin(self) -> None:
        """Have the default network."""

    def repair(self) -> None:
        """What is documented for after a flush of the host's firewall."""

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        """Make a network."""

    def facts(self, name: str) -> NetworkInfo:
        """Tell about a network; `Refused` where there is none."""

    def names(self) -> list[str]:
        """Every network's name."""

    def remove(self, name: str) -> None:
        """Remove a network that nobody is on."""

    def asked(self, spec: ContainerSpec) -> ContainerSpec:
        """What a container asks for, with what it leaves open settled; `Refused`: it cannot be."""

    def wire(self, record: BareRecord) -> WiredNetns:
        """Put a container on the networks of its record, before it is started."""

    def unwire(self, record: BareRecord) -> None:
        """Take it off again, once it has ended; also where `wire` did not come to its end."""
