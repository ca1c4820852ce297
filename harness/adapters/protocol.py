"""What an adapter is: the small class that drives one runtime inside a host.

Everything an adapter does happens inside the namespaces of the `HostHandle` it
is given, daemon included. Adapters are made per world and never shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from harness import moved
from harness.model.dialect import Dialect
from harness.model.features import Feature
from harness.model.plan import ContainerSpec, NetworkSpec, Publish
from harness.world.process import CompletedCommand, ExecCommand

P = ParamSpec("P")
T = TypeVar("T")


class RuntimeRefused(Exception):
    """The runtime said no: a clear, orderly refusal of a request.

    Carries what was asked and the runtime's own words. A crash, a hang or
    garbage is a `RuntimeBroken`, not this.
    """

    def __init__(self, asked: str, said: str) -> None:
        super().__init__(f"{asked}: {said}")
        self.asked, self.said = asked, said

    def __reduce__(self) -> tuple[type[RuntimeRefused], tuple[str, str]]:
        """Also where it was raised in another process."""
        return type(self), (self.asked, self.said)


class RuntimeBroken(Exception):
    """The runtime crashed, hung or talked garbage: an *error*, with its log."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a container is on one network, as the runtime reports it."""

    network: str
    address: IPv4Interface | None = None
    gateway: str | None = None
    address6: IPv6Interface | None = None
    gateway6: str | None = None
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What the runtime reports about a container.

    `pid` is its pid 1 in the *host's* pid namespace, 0 when it does not run.
    `ports` are those of the host that lead to it, as they came about. `warnings` are
    what the runtime said on standard error when it started it.
    """

    id: str
    name: str
    pid: int
    running: bool
    endpoints: tuple[Endpoint, ...] = ()
    exit_code: int | None = None
    ports: tuple[Publish, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """What the runtime reports about a network: its host interface and its subnets."""

    name: str
    id: str
    interface: str | None
    gateways: tuple[IPv4Interface | IPv6Interface, ...] = ()


class HostHandle(Protocol):
    """The machine that the runtime runs on, as an adapter sees it."""

    @property
    def pid(self) -> int:
        """Pid of the host's init, in the caller's pid namespace."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> CompletedCommand:
        """Run a command inside the host to its end.

        `TimeoutError` ends it and says so, and so does `OutputTooLong`.
        """

    def spawn(self, argv: Sequence[str], *, log: str, env: Mapping[str, str] | None = None) -> int:
        """Start a daemon inside the host, output to the file `log` there; its pid in the host."""

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a picklable function inside the host's namespaces and return its result.

        An exception it raises is raised here.
        """


class Adapter(Protocol):
    """Drives one runtime. A handful of verbs; raise `RuntimeRefused` for an orderly no."""

    name: str
    version: str
    features: frozenset[Feature]
    dialect: Dialect

    def start(self) -> None:
        """Bring the runtime up in the host: daemon running, image there."""

    def stop(self) -> None:
        """Take it down again; containers need not be removed."""

    def network(self, spec: NetworkSpec) -> NetworkInfo:
        """Create a network and tell about it."""

    def network_facts(self, name: str) -> NetworkInfo:
        """Tell about a network, the default one (`bridge`) included."""

    def remove_network(self, name: str) -> None:
        """Remove a network that no container is on."""

    def run(self, spec: ContainerSpec) -> ContainerInfo:
        """Create and start a container; returns when its network is in place."""

    def inspect(self, name: str) -> ContainerInfo:
        """What the runtime reports about a container."""

    def connect(self, name: str, network: str, *, aliases: Sequence[str] = ()) -> ContainerInfo:
        """Connect a container, running or not, to one network more."""

    def disconnect(self, name: str, network: str) -> ContainerInfo:
        """Take a container, running or not, off a network."""

    def exec(self, name: str, argv: Sequence[str], *, timeout: float = 30) -> CompletedCommand:
        """Run a command in a running container to its end."""

    def exec_command(self, name: str, argv: Sequence[str]) -> ExecCommand:
        """What executes a command in a container for as long as it runs, for the exec probe.

        Its standard input and output are those of the command inside, without a terminal;
        it may do there whatever the runtime lets such a command do at most.
        """
        raise RuntimeRefused(f"exec in {name}: {' '.join(argv)}", "this adapter cannot")

    def stop_container(self, name: str) -> None:
        """Stop a running container; it can be started again."""

    def start_container(self, name: str) -> ContainerInfo:
        """Start a stopped container."""

    def remove(self, *names: str) -> None:
        """Remove containers, running or not. All are tried; several may go at the same time."""

    def repair(self) -> None:
        """What the runtime documents for when somebody has flushed the host's firewall."""

    def crash(self, spec: ContainerSpec, *, after: float) -> None:
        """Begin to start a container and kill the runtime `after` seconds later, with SIGKILL.

        Of a runtime without a daemon that is the process which starts the container.
        Returns when it is dead; `start` brings it up again.
        """

    def prune(self) -> None:
        """Remove every container and every network that is not the runtime's own."""


class AdapterFactory(Protocol):
    """What the registry and the entry point group `netmodes.adapters` hold: an adapter's class."""

    @property
    def features(self) -> frozenset[Feature]:
        """What its adapters will claim, known before there is a host to make one for."""

    def __call__(self, host: HostHandle, /) -> Adapter:
        """Make the adapter that drives the runtime in this host."""


if not TYPE_CHECKING:
    __getattr__ = moved(
        __name__,
        {
            "Completed": "harness.world.process:CompletedCommand",
            "Facts": "harness.adapters.protocol:ContainerInfo",
            "NetworkFacts": "harness.adapters.protocol:NetworkInfo",
            "SaidTooMuch": "harness.world.process:OutputTooLong",
        },
    )
