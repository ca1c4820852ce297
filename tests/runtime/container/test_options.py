"""Tests of a container's options, and of the errors for invalid ones."""

from __future__ import annotations

import pickle
from typing import Any, cast

import pytest

from runtime.container.options import CONTRADICTIONS, ContainerOptions, configure
from runtime.errors import CommandNotFoundError, InvalidError, MydockerError
from runtime.records import NetworkMode

IDENTITY = "0123456789abcdef" * 4


def _configure(**options: Any) -> Any:
    return configure(IDENTITY, "base", ["true"], cast("ContainerOptions", options))


def test_container_option_defaults_are_those_of_docker() -> None:
    """The defaults are Docker's: the bridge, a hostname from the id, a PATH."""
    config = _configure()
    assert (config.network, config.hostname, config.workdir) == ("bridge", IDENTITY[:12], "/")
    assert config.env[0].startswith("PATH=")


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("bridge", "bridge", "bridge"),
        ("default", "bridge", "bridge"),
        ("host", "host", ""),
        ("none", "none", ""),
        ("container:web", "container", "web"),
        ("lan", "bridge", "lan"),
        ("container", "bridge", "container"),
    ],
)
def test_network_mode_is_parsed(text: str, kind: str, name: str) -> None:
    """A network mode is one of the four modes, or the name of a network."""
    assert NetworkMode.parse(text) == (kind, name)


@pytest.mark.parametrize("text", ["container:", "host:x", "bri dge", "/"])
def test_unknown_network_mode_is_refused(text: str) -> None:
    """The error for an unknown network mode lists the existing modes."""
    with pytest.raises(InvalidError, match="bridge, none, host"):
        NetworkMode.parse(text)


OPTIONS: dict[str, dict[str, Any]] = {
    "publish": {"publish": ["80:80"]},
    "mac": {"mac": "02:42:00:00:00:01"},
    "ip": {"ip": "172.17.0.5"},
    "ip6": {"ip6": "fd00::5"},
    "hostname": {"hostname": "web"},
    "dns": {"dns": ["192.0.2.1"]},
    "add-host": {"add_hosts": ["a:192.0.2.1"]},
    "alias": {"aliases": ["a"]},
    "net sysctl": {"sysctls": {"net.ipv4.ip_forward": "1"}},
}


@pytest.mark.parametrize("network", ["none", "host", "container:web"])
@pytest.mark.parametrize("option", OPTIONS)
def test_option_contradicting_the_network_mode_is_refused(network: str, option: str) -> None:
    """The error names each option that the network mode forbids; others are accepted."""
    kind = NetworkMode.parse(network).kind
    if option in CONTRADICTIONS[kind]:
        with pytest.raises(
            InvalidError, match=rf"{option}.* cannot be used with network mode {kind}"
        ):
            _configure(network=network, **OPTIONS[option])
    else:
        _configure(network=network, **OPTIONS[option])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workdir": "tmp"}, "not absolute"),
        ({"hostname": "a_b"}, "hostname"),
        ({"hostname": "a" * 65}, "hostname"),
        ({"ip": "10.0.0"}, "--ip"),
        ({"ip": "fd00::1"}, "IPv6 address"),
        ({"ip6": "10.0.0.1"}, "IPv4 address"),
        ({"dns": ["x"]}, "--dns"),
        ({"mac": "02:42"}, "MAC"),
        ({"mac": "03:00:00:00:00:01"}, "unicast"),
        ({"add_hosts": ["a"]}, "NAME:ADDRESS"),
        ({"add_hosts": [":192.0.2.1"]}, "NAME:ADDRESS"),
        ({"add_hosts": ["a:b"]}, "--add-host: 'b'"),
        ({"add_hosts": ["a:host-gateway"]}, "--add-host: 'host-gateway'"),
        ({"sysctls": {"vm.swappiness": "1"}}, "vm.swappiness"),
        ({"sysctls": {"net.../../x": "1"}}, "net"),
        ({"env": {"A=B": "c"}}, "malformed"),
    ],
)
def test_malformed_container_option_is_refused(options: dict[str, Any], message: str) -> None:
    """A malformed option is refused before any resource is created."""
    with pytest.raises(InvalidError, match=message):
        _configure(**options)


def test_container_without_a_command_is_refused() -> None:
    """A container of `base` without a command is refused: that image has no default command."""
    with pytest.raises(InvalidError, match="no command"):
        configure(IDENTITY, "base", [], ContainerOptions())


def test_mydocker_error_survives_pickling() -> None:
    """A pickled error can be raised on the other side of a process boundary."""
    error = CommandNotFoundError("execute 'x'", "there is none", "a typo", "ls /bin")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, MydockerError)
    assert (str(copy), copy.exit_code) == (str(error), 127)
    assert str(copy).splitlines() == [
        "cannot execute 'x': there is none",
        "  likely cause: a typo",
        "  try: ls /bin",
    ]
