"""Adapter for mydocker, the runtime of this repository, as a library inside the host.

Every verb is one function that is executed in the host with a new `Engine`. An engine keeps all its
state on disk.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path
from typing import Concatenate, Final, Literal, ParamSpec, TypeVar, cast

from harness import __version__
from harness.adapters.protocol import (
    ContainerInfo,
    Endpoint,
    HostHandle,
    NetworkInfo,
    RuntimeRefused,
)
from harness.adapters.support import options
from harness.adapters.support.call_log import CallLog
from harness.model.dialect import Dialect
from harness.model.plan import ContainerSpec, NetworkSpec, Publish
from harness.world.process import CompletedCommand, ExecCommand, killed_after
from linux.conntrack import FlowWatch
from linux.netns import NetNS
from runtime.container.options import ContainerOptions
from runtime.engine import Engine
from runtime.errors import CommandError, MydockerError
from runtime.init.fork_server import ForkServer
from runtime.network.config import NetworkOptions
from runtime.records import DEFAULT_NETWORK, ContainerRecord, NetworkConfig

if sys.platform == "linux":
    # The library imports modules on demand. Each host would import and compile them, because a host
    # has no bytecode cache. A host is forked from this process, so they are imported here once.
    from runtime.container import lifecycle, networking  # noqa: F401
    from runtime.daemon import client, daemon, dns_socket  # noqa: F401
    from runtime.image import assemble, config, images, store  # noqa: F401
    from runtime.network import manager, ports  # noqa: F401

P = ParamSpec("P")
T = TypeVar("T")

_PACKAGES: Final = str(Path(__file__).parents[2])
IMAGE = "base"
FOR_EVER = ("sleep", "2147483647")


class MydockerAdapter:
    """Adapter that drives mydocker through its library."""

    name = "mydocker"
    version = __version__
    features = options.FEATURES
    dialect = Dialect(joined_survives="loopback-only")

    def __init__(self, host: HostHandle) -> None:
        self._calls = CallLog(host)

    @property
    def commands(self) -> Sequence[CompletedCommand]:
        """The last requests and their results, as evidence of a failure."""
        return self._calls.entries

    def _call(
        self,
        request: str,
        method: Callable[Concatenate[Engine, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        try:
            job = update_wrapper(partial(_with_engine, method), method, ("__qualname__",), ())
            return self._calls.call(request, job, *args, **kwargs)
        except MydockerError as error:
            raise RuntimeRefused(request, str(error)) from error

    def start(self) -> None:
        """Assemble the image and create the default network."""
        self._call("start mydocker", _start)

    def stop(self) -> None:
        """Remove everything that mydocker made in this host."""
        self._call("stop mydocker", _stop)

    def network(self, spec: NetworkSpec) -> NetworkInfo:
        """Create a network with `Engine.network_create`."""
        request, given = f"create network {spec.name}", _network_options(spec)
        return _network_facts(self._call(request, Engine.network_create, spec.name, **given))

    def network_facts(self, name: str) -> NetworkInfo:
        """Return the facts about a network, from `Engine.network_inspect`."""
        return _network_facts(self._call(f"inspect network {name}", Engine.network_inspect, name))

    def remove_network(self, name: str) -> None:
        """Remove a network with `Engine.network_remove`."""
        self._call(f"remove network {name}", Engine.network_remove, name)

    def run(self, spec: ContainerSpec) -> ContainerInfo:
        """Create and start a container; connect it to further networks before the start."""
        command = spec.command or FOR_EVER
        given = _container_options(spec)
        return _facts(self._call(f"run {spec.name}", _run, command, given, spec.also))

    def inspect(self, name: str) -> ContainerInfo:
        """Return the facts about a container, from `Engine.inspect`."""
        return _facts(self._call(f"inspect {name}", Engine.inspect, name))

    def connect(self, name: str, network: str, *, aliases: Sequence[str] = ()) -> ContainerInfo:
        """Connect a container to a network with `Engine.network_connect`."""
        request = f"connect {name} to {network}"
        return _facts(self._call(request, Engine.network_connect, network, name, aliases=aliases))

    def disconnect(self, name: str, network: str) -> ContainerInfo:
        """Disconnect a container from a network with `Engine.network_disconnect`."""
        request = f"disconnect {name} from {network}"
        return _facts(self._call(request, Engine.network_disconnect, network, name))

    def exec(self, name: str, argv: Sequence[str], *, timeout: float = 30) -> CompletedCommand:
        """Run a command in a container; a missing command exits with 127, as in a shell."""
        return self._call(f"exec in {name}", _exec, name, tuple(argv), timeout)

    def exec_command(self, name: str, argv: Sequence[str]) -> ExecCommand:
        """Return the `mydocker exec -i` command line that runs a command in a container."""
        words = (sys.executable, "-m", "runtime", "exec", "-i", name, *argv)
        return ExecCommand(words, {"PYTHONPATH": _PACKAGES})

    def stop_container(self, name: str) -> None:
        """Stop a container with `Engine.stop`."""
        self._call(f"stop {name}", Engine.stop, name)

    def start_container(self, name: str) -> ContainerInfo:
        """Start a stopped container with `Engine.start`."""
        return _facts(self._call(f"start {name}", Engine.start, name))

    def remove(self, *names: str) -> None:
        """Remove containers, running or not, with one call of `Engine.remove`."""
        if names:
            self._call(f"remove {', '.join(names)}", Engine.remove, *names, force=True)

    def repair(self) -> None:
        """Repair the rules with `Engine.repair`."""
        self._call("repair", Engine.repair)

    def crash(self, spec: ContainerSpec, *, after: float) -> None:
        """Start a container in another process, and kill that process."""
        command = spec.command or FOR_EVER
        self._call(f"crash {spec.name}", _crash, command, _container_options(spec), after)

    def prune(self) -> None:
        """Remove every container and every network except the default one."""
        self._call("prune", _prune)


# --- specs of a plan as options of mydocker -----------------------------------------


def _network_options(spec: NetworkSpec) -> NetworkOptions:
    given = NetworkOptions(ipv6=spec.ipv6, internal=spec.internal, icc=spec.icc)
    keys: tuple[Literal["subnet", "gateway", "ip_range", "subnet6", "gateway6"], ...]
    keys = ("subnet", "gateway", "ip_range", "subnet6", "gateway6")
    for key in keys:
        if (value := getattr(spec, key)) is not None:
            given[key] = str(value)
    if spec.mtu is not None:
        given["mtu"] = spec.mtu
    return given


def _container_options(spec: ContainerSpec) -> ContainerOptions:
    return ContainerOptions(
        name=spec.name,
        network=options.network(spec.mode),
        hostname=spec.hostname or "",
        ip=str(spec.ip or ""),
        ip6=str(spec.ip6 or ""),
        mac=spec.mac or "",
        aliases=spec.aliases,
        publish=[options.published(port) for port in spec.ports],
        sysctls=dict(spec.sysctls),
        dns=[str(server) for server in spec.dns],
        add_hosts=[f"{name}:{address}" for name, address in spec.hosts],
    )


# --- records of mydocker as facts ---------------------------------------------------


def _network_facts(network: NetworkConfig) -> NetworkInfo:
    return NetworkInfo(network.name, network.id, network.bridge, tuple(network.gateways))


def _facts(container: ContainerRecord) -> ContainerInfo:
    state = container.state
    return ContainerInfo(
        id=container.id,
        name=container.name,
        pid=state.pid,
        running=container.running,
        endpoints=tuple(
            Endpoint(
                network=item.network,
                address=IPv4Interface(item.address),
                gateway=item.gateway or None,
                address6=IPv6Interface(item.address6) if item.address6 else None,
                gateway6=item.gateway6 or None,
                mac=item.mac,
            )
            for item in state.endpoints
        ),
        exit_code=state.exit_code,
        ports=tuple(
            Publish(
                item.host_port,
                item.port,
                cast("Literal['tcp', 'udp', 'sctp']", item.protocol),
                ip_address(item.address),
            )
            for item in state.ports
        ),
    )


# --- inside the host -----------------------------------------------------------


_engines: Final[dict[int, tuple[Engine, ForkServer]]] = {}
"""Engines that watch flows, by process id: a fork must not use its parent's engine."""


def _with_engine(
    method: Callable[Concatenate[Engine, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    kept = _engines.get(os.getpid())
    return method(kept[0] if kept else Engine(), *args, **kwargs)


def _start(engine: Engine) -> None:
    if os.getpid() not in _engines:
        server = ForkServer.begin()
        with NetNS.own() as here:
            engine = Engine(flows=FlowWatch(here), spawn=server.spawn)
        _engines[os.getpid()] = engine, server
    engine.images.all()
    engine.network_inspect(DEFAULT_NETWORK)
    engine.containers()  # every request removes what a killed one has left


def _stop(engine: Engine) -> None:
    engine.teardown()
    if kept := _engines.pop(os.getpid(), None):
        _, server = kept
        server.close()


def _run(
    engine: Engine, command: tuple[str, ...], options: ContainerOptions, also: tuple[str, ...]
) -> ContainerRecord:
    if not also:
        return engine.run(IMAGE, command, **options)
    made = engine.create(IMAGE, command, **options)
    try:
        for network in also:
            engine.network_connect(network, made.id)
        return engine.start(made.id)
    except BaseException:
        engine.remove(made.id, force=True)
        raise


def _exec(engine: Engine, name: str, argv: tuple[str, ...], timeout: float) -> CompletedCommand:
    began = time.perf_counter()
    try:
        code, out, err = engine.exec(name, argv, timeout=timeout)
    except CommandError as error:
        code, out, err = error.exit_code, b"", f"{error}\n".encode()
    return CompletedCommand(
        argv=argv,
        returncode=code,
        stdout=out.decode(errors="replace"),
        stderr=err.decode(errors="replace"),
        seconds=time.perf_counter() - began,
    )


def _crash(_: Engine, command: tuple[str, ...], options: ContainerOptions, after: float) -> None:
    killed_after(after, lambda: Engine().run(IMAGE, command, **options))


def _prune(engine: Engine) -> None:
    engine.remove(*(container.id for container in engine.containers()), force=True)
    for network in engine.networks():
        if network.name != DEFAULT_NETWORK:
            engine.network_remove(network.name)
