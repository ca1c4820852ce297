"""The protocol of adapters, the classes that drive one runtime inside a host.

An adapter does all its work inside the namespaces of its `HostHandle`, including the runtime's
daemon. Each world has a separate adapter.
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
    """The runtime refused a request in an orderly way.

    The exception has the request (`asked`) and the runtime's message (`said`). A crash, a hang or
    garbage raises `RuntimeBroken` instead.
    """

    def __init__(self, asked: str, said: str) -> None:
        super().__init__(f"{asked}: {said}")
        self.asked, self.said = asked, said

    def __reduce__(self) -> tuple[type[RuntimeRefused], tuple[str, str]]:
        """Support pickling: exceptions of another process are raised here."""
        return type(self), (self.asked, self.said)


class RuntimeBroken(Exception):
    """The runtime crashed, hung or printed garbage: an *error* of the test run, with its log."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The addresses of a container on one network, as the runtime reports them."""

    network: str
    address: IPv4Interface | None = None
    gateway: str | None = None
    address6: IPv6Interface | None = None
    gateway6: str | None = None
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """The runtime's report about a container.

    `pid` is the container's pid 1 in the *host's* pid namespace, or 0 if the container does not
    run. `ports` are the published ports with the host ports that the runtime has assigned.
    `warnings` are the standard error output of the start.
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
    """The runtime's report about a network: the host's interface and the gateways."""

    name: str
    id: str
    interface: str | None
    gateways: tuple[IPv4Interface | IPv6Interface, ...] = ()


class HostHandle(Protocol):
    """The host that the runtime runs on, with the methods that an adapter may use."""

    @property
    def pid(self) -> int:
        """Pid of the host's init process, in the caller's pid namespace."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> CompletedCommand:
        """Run a command inside the host to its end.

        A command that exceeds its time or output limit is killed. The method then raises
        `TimeoutError` or `OutputTooLong`.
        """

    def spawn(self, argv: Sequence[str], *, log: str, env: Mapping[str, str] | None = None) -> int:
        """Start a daemon inside the host; return its pid there. Its output goes to `log`."""

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a picklable function inside the host's namespaces and return its result.

        An exception in the function is raised in the caller.
        """


class Adapter(Protocol):
    """Driver of one runtime; its methods raise `RuntimeRefused` for an orderly refusal."""

    name: str
    version: str
    features: frozenset[Feature]
    dialect: Dialect

    def start(self) -> None:
        """Start the runtime in the host; on return its daemon runs and the image is loaded."""

    def stop(self) -> None:
        """Stop the runtime; containers need not be removed."""

    def network(self, spec: NetworkSpec) -> NetworkInfo:
        """Create a network and return its facts."""

    def network_facts(self, name: str) -> NetworkInfo:
        """Return the facts about a network, including the default one (`bridge`)."""

    def remove_network(self, name: str) -> None:
        """Remove a network without containers."""

    def run(self, spec: ContainerSpec) -> ContainerInfo:
        """Create and start a container; return when its network is complete."""

    def inspect(self, name: str) -> ContainerInfo:
        """Return the runtime's report about a container."""

    def connect(self, name: str, network: str, *, aliases: Sequence[str] = ()) -> ContainerInfo:
        """Connect a container, running or not, to another network."""

    def disconnect(self, name: str, network: str) -> ContainerInfo:
        """Disconnect a container, running or not, from a network."""

    def exec(self, name: str, argv: Sequence[str], *, timeout: float = 30) -> CompletedCommand:
        """Run a command in a running container to its end."""

    def exec_command(self, name: str, argv: Sequence[str]) -> ExecCommand:
        """Return the command line that runs a command in a container, for the exec probe.

        The process of the command line passes its standard input and output to the command in the
        container, without a terminal. The command has all capabilities that the runtime can grant.
        """
        raise RuntimeRefused(
            f"exec in {name}: {' '.join(argv)}", "this adapter does not support it"
        )

    def stop_container(self, name: str) -> None:
        """Stop a running container; it can be started again."""

    def start_container(self, name: str) -> ContainerInfo:
        """Start a stopped container."""

    def remove(self, *names: str) -> None:
        """Remove containers, running or not; a failure does not stop the removal of the others."""

    def repair(self) -> None:
        """Repair the runtime's rules, as documented, after a flush of the host's firewall."""

    def crash(self, spec: ContainerSpec, *, after: float) -> None:
        """Begin to start a container and kill the runtime `after` seconds later, with SIGKILL.

        For a runtime without a daemon, the process that starts the container is killed. Returns
        when the process is dead; `start` starts the runtime again.
        """

    def prune(self) -> None:
        """Remove every container, and every network except the runtime's own."""


class AdapterFactory(Protocol):
    """Factory of adapters, such as an adapter's class; entry points of other packages name one."""

    @property
    def features(self) -> frozenset[Feature]:
        """The features that the adapters declare; known without a host."""

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
