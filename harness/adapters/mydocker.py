"""mydocker, the embedded runtime, driven as a library inside the host.

Every verb is one call into the host, where an `Engine` is made for it: the engine keeps all of
its state on disk.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path
from typing import Final, Literal, ParamSpec, TypeVar, cast

from harness import __version__
from harness.adapters.protocol import (
    ContainerInfo,
    Endpoint,
    HostHandle,
    NetworkInfo,
    RuntimeRefused,
)
from harness.adapters.support.call_log import CallLog
from harness.model.dialect import Dialect
from harness.model.features import Feature
from harness.model.plan import (
    Attached,
    Bridge,
    ContainerSpec,
    Host,
    Joined,
    Mode,
    NetworkSpec,
    Nothing,
    Publish,
)
from harness.world.process import CompletedCommand, ExecCommand, killed_after
from linux.conntrack import FlowWatch
from linux.netns import NetNS
from linux.proc import protocol_available
from runtime.container.options import ContainerOptions
from runtime.engine import Engine
from runtime.errors import CommandError, MydockerError
from runtime.network.config import NetworkOptions
from runtime.records import DEFAULT_NETWORK, ContainerRecord, NetworkConfig

if sys.platform == "linux":
    # A library call imports modules on demand. Each host would import and compile them, because it
    # has no byte-code cache. A host is forked from this process, so they are imported here once.
    from runtime.container import lifecycle, networking  # noqa: F401
    from runtime.daemon import client, daemon, dns_socket  # noqa: F401
    from runtime.image import assemble, config, images, store  # noqa: F401
    from runtime.network import manager, modes, ports  # noqa: F401

P = ParamSpec("P")
T = TypeVar("T")

_PACKAGES: Final = str(Path(__file__).parents[2])
IMAGE = "base"
FOR_EVER = ("sleep", "2147483647")


class MydockerAdapter:
    """Adapter that drives mydocker through its library."""

    name = "mydocker"
    version = __version__
    features = frozenset(
        {
            Feature.BRIDGE,
            Feature.HOST,
            Feature.NONE,
            Feature.CONTAINER,
            Feature.NETWORKS,
            Feature.INTERNAL,
            Feature.ICC,
            Feature.IPV6,
            Feature.PUBLISH,
            Feature.DNS,
            Feature.STATIC_ADDRESS,
            Feature.CONNECT,
            Feature.RESTART,
            Feature.SYSCTL,
            *([Feature.SCTP] if protocol_available("SCTP") else []),
        }
    )
    dialect = Dialect(joined_survives="loopback-only")

    def __init__(self, host: HostHandle) -> None:
        self._calls = CallLog(host)

    @property
    def commands(self) -> Sequence[CompletedCommand]:
        """The last calls and their results, as evidence of a failure."""
        return self._calls.entries

    def _call(self, asked: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._calls.call(asked, function, *args, **kwargs)
        except MydockerError as error:
            raise RuntimeRefused(asked, str(error)) from error

    def start(self) -> None:
        """Assemble the image and create the default network."""
        self._call("start mydocker", _start)

    def stop(self) -> None:
        """Remove everything that mydocker made in this host."""
        self._call("stop mydocker", _stop)

    def network(self, spec: NetworkSpec) -> NetworkInfo:
        """Call `mydocker network create`."""
        return self._call(
            f"create network {spec.name}", _create_network, spec.name, _network_options(spec)
        )

    def network_facts(self, name: str) -> NetworkInfo:
        """Call `mydocker network inspect`."""
        return self._call(f"inspect network {name}", _inspect_network, name)

    def remove_network(self, name: str) -> None:
        """Call `mydocker network rm`."""
        self._call(f"remove network {name}", _remove_network, name)

    def run(self, spec: ContainerSpec) -> ContainerInfo:
        """Call `mydocker run -d`, or create, `network connect` and start."""
        command = spec.command or FOR_EVER
        return self._call(f"run {spec.name}", _run, command, _container_options(spec), spec.also)

    def inspect(self, name: str) -> ContainerInfo:
        """Call `mydocker inspect`."""
        return self._call(f"inspect {name}", _inspect, name)

    def connect(self, name: str, network: str, *, aliases: Sequence[str] = ()) -> ContainerInfo:
        """Call `mydocker network connect`."""
        return self._call(f"connect {name} to {network}", _connect, name, network, tuple(aliases))

    def disconnect(self, name: str, network: str) -> ContainerInfo:
        """Call `mydocker network disconnect`."""
        return self._call(f"disconnect {name} from {network}", _disconnect, name, network)

    def exec(self, name: str, argv: Sequence[str], *, timeout: float = 30) -> CompletedCommand:
        """Call `mydocker exec`; a command that is not there exits with 127, as in a shell."""
        return self._call(f"exec in {name}", _exec, name, tuple(argv), timeout)

    def exec_command(self, name: str, argv: Sequence[str]) -> ExecCommand:
        """Return the words of `mydocker exec -i`."""
        words = (sys.executable, "-m", "runtime", "exec", "-i", name, *argv)
        return ExecCommand(words, {"PYTHONPATH": _PACKAGES})

    def stop_container(self, name: str) -> None:
        """Call `mydocker stop`."""
        self._call(f"stop {name}", _stop_container, name)

    def start_container(self, name: str) -> ContainerInfo:
        """Call `mydocker start`."""
        return self._call(f"start {name}", _start_container, name)

    def remove(self, *names: str) -> None:
        """Call `mydocker rm -f` for all of them in one step."""
        if names:
            self._call(f"remove {', '.join(names)}", _remove, names)

    def repair(self) -> None:
        """Call `mydocker system repair`."""
        self._call("repair", _repair)

    def crash(self, spec: ContainerSpec, *, after: float) -> None:
        """Call `mydocker run -d` and kill it."""
        command = spec.command or FOR_EVER
        self._call(f"crash {spec.name}", _crash, command, _container_options(spec), after)

    def prune(self) -> None:
        """Remove every container and every network but the default one."""
        self._call("prune", _prune)


# --- specs of a plan as options of mydocker -----------------------------------------


def _network_options(spec: NetworkSpec) -> NetworkOptions:
    options = NetworkOptions(ipv6=spec.ipv6, internal=spec.internal, icc=spec.icc)
    if spec.subnet is not None:
        options["subnet"] = str(spec.subnet)
    if spec.gateway is not None:
        options["gateway"] = str(spec.gateway)
    if spec.ip_range is not None:
        options["ip_range"] = str(spec.ip_range)
    if spec.subnet6 is not None:
        options["subnet6"] = str(spec.subnet6)
    if spec.gateway6 is not None:
        options["gateway6"] = str(spec.gateway6)
    if spec.mtu is not None:
        options["mtu"] = spec.mtu
    return options


def _container_options(spec: ContainerSpec) -> ContainerOptions:
    return ContainerOptions(
        name=spec.name,
        network=_mode(spec.mode),
        hostname=spec.hostname or "",
        ip=str(spec.ip or ""),
        ip6=str(spec.ip6 or ""),
        mac=spec.mac or "",
        aliases=spec.aliases,
        publish=[_published(port) for port in spec.ports],
        sysctls=dict(spec.sysctls),
        dns=[str(server) for server in spec.dns],
        add_hosts=[f"{name}:{address}" for name, address in spec.hosts],
    )


def _mode(mode: Mode) -> str:
    match mode:
        case Bridge(network=network):
            return network
        case Host():
            return "host"
        case Joined(container=container):
            return f"container:{container}"
        case Nothing() | Attached():
            return "none"


def _published(port: Publish) -> str:
    where = ""
    if port.host_ip is not None:
        where = f"[{port.host_ip}]:" if port.host_ip.version == 6 else f"{port.host_ip}:"
    host, own = (_range(number, port.count) for number in (port.host_port, port.container_port))
    return f"{where}{host}:{own}/{port.protocol}"


def _range(first: int, count: int) -> str:
    return f"{first}-{first + count - 1}" if first and count > 1 else str(first)


# --- inside the host -----------------------------------------------------------


_engines: Final[dict[int, Engine]] = {}
"""Engines by process id."""


def _engine(*, many: bool = False) -> Engine:
    """Return the engine of the current process, with its cache of container states.

    A fork has its own engine, without the fork server and flow watch, which pay off for `many`
    calls only.
    """
    pid = os.getpid()
    if pid not in _engines:
        _engines[pid] = _for_many() if many else Engine()
    return _engines[pid]


def _for_many() -> Engine:
    with NetNS.own() as here:
        return Engine(flows=FlowWatch(here))


def _start() -> None:
    engine = _engine(many=True)
    engine.images.all()
    engine.network_inspect(DEFAULT_NETWORK)
    engine.containers()  # every call cleans up after a killed one


def _stop() -> None:
    Engine().teardown()


def _network_facts(network: NetworkConfig) -> NetworkInfo:
    return NetworkInfo(network.name, network.id, network.bridge, tuple(network.gateways))


def _create_network(name: str, options: NetworkOptions) -> NetworkInfo:
    return _network_facts(Engine().network_create(name, **options))


def _inspect_network(name: str) -> NetworkInfo:
    return _network_facts(Engine().network_inspect(name))


def _remove_network(name: str) -> None:
    Engine().network_remove(name)


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


def _run(
    command: tuple[str, ...], options: ContainerOptions, also: tuple[str, ...]
) -> ContainerInfo:
    engine = _engine()
    if not also:
        return _facts(engine.run(IMAGE, command, **options))
    made = engine.create(IMAGE, command, **options)
    try:
        for network in also:
            engine.network_connect(network, made.id)
        return _facts(engine.start(made.id))
    except BaseException:
        engine.remove(made.id, force=True)
        raise


def _connect(name: str, network: str, aliases: tuple[str, ...]) -> ContainerInfo:
    return _facts(_engine().network_connect(network, name, aliases=aliases))


def _disconnect(name: str, network: str) -> ContainerInfo:
    return _facts(_engine().network_disconnect(network, name))


def _inspect(name: str) -> ContainerInfo:
    return _facts(_engine().inspect(name))


def _exec(name: str, argv: tuple[str, ...], timeout: float) -> CompletedCommand:
    began = time.perf_counter()
    try:
        result = Engine().exec(name, argv, timeout=timeout)
    except CommandError as error:
        code, out, err = error.exit_code, b"", f"{error}\n".encode()
    else:
        code, out, err = result
    return CompletedCommand(
        argv=argv,
        returncode=code,
        stdout=out.decode(errors="replace"),
        stderr=err.decode(errors="replace"),
        seconds=time.perf_counter() - began,
    )


def _stop_container(name: str) -> None:
    _engine().stop(name)


def _start_container(name: str) -> ContainerInfo:
    return _facts(_engine().start(name))


def _remove(names: Sequence[str]) -> None:
    _engine().remove(*names, force=True)


def _repair() -> None:
    Engine().repair()


def _crash(command: tuple[str, ...], options: ContainerOptions, after: float) -> None:
    killed_after(after, lambda: Engine().run(IMAGE, command, **options))


def _prune() -> None:
    engine = Engine()
    if containers := engine.containers():
        _remove([container.id for container in containers])
    for network in engine.networks():
        if network.name != DEFAULT_NETWORK:
            engine.network_remove(network.name)
