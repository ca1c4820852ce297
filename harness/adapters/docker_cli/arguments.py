"""Functions that turn the specs of a plan into arguments of Docker-compatible commands (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.support import options
from harness.model.plan import DEFAULT_NETWORK, Bridge, ContainerSpec, Host, NetworkSpec


def container(cli: CliSpec, spec: ContainerSpec) -> list[str]:
    """Return the arguments of `run` or `create`."""
    return [*_options(cli, spec), cli.image, *(spec.command or cli.idle)]


def _options(cli: CliSpec, spec: ContainerSpec) -> Iterator[str]:
    yield from ("--name", cli.named(spec.name))
    yield from ("--network", options.network(spec.mode, partial(network_name, cli), cli.named))
    if isinstance(spec.mode, Host):
        yield from cli.words.host
    single = {
        "--hostname": spec.hostname,
        "--ip": spec.ip,
        "--ip6": spec.ip6,
        "--mac-address": spec.mac,
    }
    for option, value in single.items():
        if value is not None:
            yield from (option, str(value))
    for alias in aliases(cli, spec):
        yield from ("--network-alias", alias)
    for port in spec.ports:
        yield from ("-p", options.published(port))
    for key, value in spec.sysctls:
        yield from ("--sysctl", f"{key}={value}")
    for server in spec.dns:
        yield from ("--dns", str(server))
    for name, address in spec.hosts:
        yield from ("--add-host", f"{name}:{address}")


def aliases(cli: CliSpec, spec: ContainerSpec) -> Sequence[str]:
    """Return the requested aliases, and the plan's name if the runtime uses another name."""
    own_network = isinstance(spec.mode, Bridge) and spec.mode.network != DEFAULT_NETWORK
    filled = own_network and cli.named(spec.name) != spec.name
    return (*spec.aliases, spec.name) if filled else spec.aliases


def network_name(cli: CliSpec, name: str) -> str:
    """Return the runtime's name for a network of a plan."""
    return cli.default_network if name == DEFAULT_NETWORK else cli.named(name)


def plan_name(cli: CliSpec, name: str) -> str:
    """Return the plan's name for a network of the runtime."""
    return DEFAULT_NETWORK if name == cli.default_network else name


def network(cli: CliSpec, spec: NetworkSpec) -> list[str]:
    """Return the arguments of `network create`."""
    words: list[str] = []
    if spec.ipv6 or spec.subnet6:
        words.append("--ipv6")
    if spec.internal:
        words.append("--internal")
    for option, value in (
        ("--subnet", spec.subnet),
        ("--gateway", spec.gateway),
        ("--ip-range", spec.ip_range),
        ("--subnet", spec.subnet6),
        ("--gateway", spec.gateway6),
    ):
        if value is not None:
            words += (option, str(value))
    if not spec.icc:
        words += ("--opt", f"{cli.words.icc}=false")
    if spec.mtu is not None:
        words += ("--opt", f"{cli.words.mtu}={spec.mtu}")
    return [*words, cli.named(spec.name)]
