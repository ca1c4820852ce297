"""Tests of the arguments that Docker-compatible commands are called with."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

import pytest

from harness.adapters.docker_cli import arguments
from harness.adapters.docker_cli.spec import FOR_EVER, CliSpec, CliVerbs
from harness.adapters.support import options
from harness.model.plan import (
    Bridge,
    ContainerSpec,
    Host,
    Joined,
    Mode,
    NetworkSpec,
    Nothing,
    Publish,
)

PLAIN: Final = CliSpec(name="acme", command=("acmectl",), features=frozenset())


@pytest.mark.parametrize(
    ("mode", "value"),
    [
        (Bridge(), "podman"),
        (Bridge("lan"), "lan"),
        (Host(), "host"),
        (Nothing(), "none"),
        (Joined("web"), "container:web"),
    ],
    ids=str,
)
def test_mode_becomes_network_option(mode: Mode, value: str) -> None:
    """A mode becomes a network option, with the name that the runtime gives its default network."""
    spec = replace(PLAIN, default_network="podman")
    words = arguments.container(spec, ContainerSpec("it", mode))
    assert words[:4] == ["--name", "it", "--network", value]


def test_mode_host_adds_its_own_options() -> None:
    """The options that a description has for mode host are used in mode host only."""
    spec = replace(PLAIN, words=CliVerbs(host=("--annotation", "network=host")))
    words = arguments.container(spec, ContainerSpec("it", Host()))
    assert words[2:6] == ["--network", "host", "--annotation", "network=host"]
    assert "--annotation" not in arguments.container(spec, ContainerSpec("it", Bridge()))


def test_every_field_of_a_spec_becomes_an_option() -> None:
    """Each field of a container's spec becomes an option that Docker and podman accept.

    The image and the command are the last arguments.
    """
    wish = ContainerSpec(
        "web",
        Bridge("lan"),
        ip=IPv4Address("172.30.0.5"),
        ip6=IPv6Address("fd00::5"),
        mac="02:00:00:00:00:05",
        hostname="host5",
        aliases=("www",),
        ports=(Publish(8080, 80),),
        sysctls=(("net.ipv4.ip_default_ttl", "61"),),
        dns=(IPv4Address("203.0.113.53"),),
        hosts=(("there", IPv4Address("203.0.113.10")),),
        command=("sleep", "9"),
    )
    words = " ".join(arguments.container(PLAIN, wish))
    assert words == (
        "--name web --network lan --hostname host5 --ip 172.30.0.5 --ip6 fd00::5 "
        "--mac-address 02:00:00:00:00:05 --network-alias www -p 8080:80/tcp "
        "--sysctl net.ipv4.ip_default_ttl=61 --dns 203.0.113.53 --add-host there:203.0.113.10 "
        "base sleep 9"
    )


def test_default_command_is_that_of_the_description() -> None:
    """The default command of a container is that of the runtime's description.

    It is a shell that handles SIGTERM, because a pid 1 without a handler ignores the signal.
    """
    assert arguments.container(PLAIN, ContainerSpec("web"))[-4:] == ["base", *FOR_EVER]
    waiting = replace(PLAIN, idle=("sleep", "9"))
    assert arguments.container(waiting, ContainerSpec("web"))[-3:] == ["base", "sleep", "9"]


@pytest.mark.parametrize(
    ("port", "value"),
    [
        (Publish(8080, 80), "8080:80/tcp"),
        (Publish(0, 80, "udp"), "80/udp"),
        (Publish(8080, 80, "tcp", IPv4Address("127.0.0.1")), "127.0.0.1:8080:80/tcp"),
        (Publish(0, 80, "tcp", IPv4Address("127.0.0.1")), "127.0.0.1::80/tcp"),
        (Publish(8080, 80, "tcp", IPv6Address("::1")), "[::1]:8080:80/tcp"),
        (Publish(8000, 80, count=3), "8000-8002:80-82/tcp"),
    ],
    ids=str,
)
def test_port_is_written_in_dockers_format(port: Publish, value: str) -> None:
    """A published port is written in Docker's format.

    https://docs.docker.com/reference/cli/docker/container/run/#publish
    """
    assert options.published(port) == value


def test_network_is_created_with_families_and_options() -> None:
    """A network is created with a subnet and a gateway for each family.

    The description has the names of the options for the MTU and inter-container communication.
    """
    spec = replace(PLAIN, words=CliVerbs(mtu="mtu", icc="icc"))
    wish = NetworkSpec(
        "lan",
        subnet=IPv4Network("172.30.0.0/24"),
        gateway=IPv4Address("172.30.0.9"),
        subnet6=IPv6Network("fd00::/64"),
        internal=True,
        icc=False,
        mtu=1400,
    )
    assert " ".join(arguments.network(spec, wish)) == (
        "--ipv6 --internal --subnet 172.30.0.0/24 --gateway 172.30.0.9 --subnet fd00::/64 "
        "--opt icc=false --opt mtu=1400 lan"
    )


def test_short_name_is_padded_and_kept_as_alias() -> None:
    """A short container name is padded, for runtimes that refuse it.

    On networks that have aliases, the short name is an alias.
    """
    spec = replace(PLAIN, shortest_name=2)
    words = arguments.container(spec, ContainerSpec("a", Bridge("lan")))
    assert words[:6] == ["--name", "ax", "--network", "lan", "--network-alias", "a"]
    assert "--network-alias" not in arguments.container(spec, ContainerSpec("a"))
    joiner = arguments.container(spec, ContainerSpec("b", Joined("a")))
    assert joiner[:4] == ["--name", "bx", "--network", "container:ax"]
    assert spec.named("ab") == "ab"
