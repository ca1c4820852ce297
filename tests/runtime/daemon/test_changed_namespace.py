"""Tests of a container that changes its own network: other containers are unharmed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from runtime.engine import Engine
from runtime.errors import MydockerError
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.daemon.dns_client import RESOLVER, ask, reply_values
from tests.runtime.support.inspection import netns

_CHANGES = {
    "its link is gone": "ip link del eth0",
    "its address is gone": "ip addr flush dev eth0",
    "another has its name": "ip link del eth0; ip link set lo down; ip link set lo name eth0",
}


@pytest.fixture
def web(engine: Engine, lan: str) -> ContainerRecord:
    """Start a container that may change its network, beside others that it could harm."""
    engine.network_create("wan", subnet="10.8.0.0/24")
    engine.run("base", FOR_EVER, name="db", network=lan)
    few = {"net.ipv4.ip_local_port_range": "40000 40009"}
    return engine.run(
        "base",
        FOR_EVER,
        name="web",
        network=lan,
        publish=["8080:80"],
        cap_add=["NET_ADMIN"],
        sysctls=few,
    )


def _check_other_containers(engine: Engine) -> None:
    """Check that containers can be listed, started and removed, also the changed container."""
    assert {item.name for item in engine.containers()} >= {"web", "db"}
    other = engine.run("base", FOR_EVER, network="lan")
    assert reply_values(ask(other, "db")) == {"10.9.0.2"}
    engine.repair()
    engine.remove("web", force=True)


@pytest.mark.parametrize("script", _CHANGES.values(), ids=list(_CHANGES))
def test_changed_interfaces_harm_no_other_container(
    engine: Engine, web: ContainerRecord, script: str
) -> None:
    """After a container changed its links, a connect or a disconnect succeeds or fails.

    Other containers are unharmed in either case.
    """
    assert engine.exec("web", ["sh", "-c", script]).exit_code == 0
    engine.repair()
    with suppress(MydockerError):
        engine.network_connect("wan", "web")
    with suppress(MydockerError):
        engine.network_disconnect("lan", "web")
    _check_other_containers(engine)


def test_container_without_free_ports_harms_no_other_container(
    engine: Engine, web: ContainerRecord
) -> None:
    """A container that binds all its ports harms no other; it needs no privilege for this.

    The daemon cannot bind a socket in such a container.
    """
    with _bind_every_port(web):
        with suppress(MydockerError):
            engine.network_connect("wan", "web")
        _check_other_containers(engine)


@contextmanager
def _bind_every_port(container: ContainerRecord) -> Iterator[None]:
    """Bind every port of the resolver's address inside the container."""
    with ExitStack() as stack, netns(container) as space:
        for port in range(40_000, 40_010):
            taken = stack.enter_context(space.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with suppress(OSError):  # the daemon itself has the port
                taken.bind((RESOLVER, port))
        yield
