"""Tests of removal, which deletes the flows of a container's addresses.

The tests run with and without a flow watch.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from linux.conntrack import Conntrack, Flow, FlowWatch
from linux.netns import NetNS
from runtime.engine import Engine
from tests.runtime.conftest import FOR_EVER

PORT = 4242


@pytest.fixture(params=["without a watch", "with a watch"])
def removing(root: Path, host: NetNS, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Yield an engine for one removal, without and with a flow watch."""
    with ExitStack() as stack:
        watched = request.param == "with a watch"
        made = Engine(root, flows=stack.enter_context(FlowWatch(host)) if watched else None)
        stack.callback(made.teardown)
        yield made


def flows(address: str) -> list[Flow]:
    """Return the flows with the address at either end."""
    with Conntrack() as conntrack:
        return [item for item in conntrack.all() if ip_address(address) in item.addresses]


def begin_flow(address: str) -> None:
    """Begin a flow from the host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.sendto(b"hello", (address, PORT))


def test_removal_deletes_only_flows_of_its_container(removing: Engine) -> None:
    """A removal deletes the flows of its container only.

    Containers are removed one after the other, with new flows in between.
    """
    several = [removing.run("base", FOR_EVER) for _ in range(3)]
    addresses = [str(ip_interface(item.state.endpoints[0].address).ip) for item in several]
    for address in addresses:
        begin_flow(address)
    assert all(map(flows, addresses))
    for number, item in enumerate(several, 1):
        removing.remove(item.id, force=True)
        assert [bool(flows(address)) for address in addresses] == [False] * number + [True] * (
            3 - number
        )


def test_publishing_a_port_deletes_earlier_flows(removing: Engine) -> None:
    """Publishing a port deletes earlier flows to it, so that a client's flow is redirected."""
    removing.run("base", FOR_EVER)  # this container's network has rules that track flows
    begin_flow("127.0.0.1")
    assert [item.original.destination_port for item in flows("127.0.0.1")] == [PORT]
    removing.run("base", FOR_EVER, publish=[f"127.0.0.1:{PORT}:{PORT}/udp"])
    assert flows("127.0.0.1") == []
