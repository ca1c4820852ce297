"""End of containers, after which rules and listeners of their published ports are gone."""

from __future__ import annotations

import errno
import os
import re
import signal
from contextlib import ExitStack
from typing import Final

import pytest

from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, Family, Protocol
from harness.plugin.marks import requirement
from harness.testbench import client
from harness.testbench.container import Container
from harness.testbench.listener import TRANSPORTS, Listener
from harness.testbench.netns_view import until
from suites.ports.published import INSIDE, PortCall, PublishNetwork, callers

OUTSIDE: Final = (ATTACKER, INTERNET, NS1)
REFUSED: Final = {(Protocol.TCP, "reset"), (Protocol.UDP, "port-unreachable")}
"""Errors that a client gets if no process listens on the port (RFC 1122)."""


def end(publish_network: PublishNetwork, container: Container, how: str) -> None:
    """Stop, remove or kill a container."""
    match how:
        case "stopped":
            container.stop()
        case "removed":
            container.remove()
        case _:
            publish_network.scene.world.host.call(os.kill, container.facts().pid, signal.SIGKILL)
            until(
                publish_network.host,
                lambda: not container.facts().running,
                "the runtime reports the container as ended",
            )


@requirement("PUB-10")
@pytest.mark.parametrize("how", ["stopped", "removed", "killed"])
def test_end_of_container_removes_port_rules_and_listeners(
    publish_network: PublishNetwork, how: str
) -> None:
    """The end of a container removes rules and listeners of its published port.

    Connections to the port are rejected afterwards. A sysctl of the network's link may stay
    changed, and an empty nft chain may stay.
    """
    before, link = publish_network.host.snapshot(), publish_network.link()
    networks = re.compile(rf"sysctl net\.ipv4\.conf\.{re.escape(link)}\.|nft chain .*: new$")

    def made() -> list[str]:
        changes = before.changes(publish_network.host.snapshot())
        return [change for change in changes if not networks.match(change)]

    web, *_ = found = publish_network.publish("web")
    assert all(
        published.serves(ATTACKER, publish_network.own(published.family)) for published in found
    )
    assert made() or not is_free(publish_network)
    end(publish_network, web.container, how)
    until(publish_network.host, lambda: not made(), "the host's state is as before")
    until(publish_network.host, lambda: is_free(publish_network), "the port is free")
    for family in publish_network.families:
        assert_refused(publish_network, family)


def is_free(publish_network: PublishNetwork) -> bool:
    """Return True if a process of the host can bind the port on all addresses."""
    try:
        for family in publish_network.families:
            for transport in TRANSPORTS:
                Listener(
                    publish_network.host, transport, family=family, port=publish_network.port
                ).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def assert_refused(publish_network: PublishNetwork, family: Family) -> None:
    """Assert that the host rejects packets to the port on each of its addresses."""
    with ExitStack() as stack:
        made = [
            (
                protocol,
                stack.enter_context(
                    client.Client(view, protocol, address, port=publish_network.port)
                ),
            )
            for caller, address in callers(publish_network.scene, family, OUTSIDE)
            for protocol in (Protocol.UDP, Protocol.TCP)
            if (view := publish_network.scene.netns(caller))
        ]
        for _, each in made:
            each.send(b"is anybody there?")
        publish_network.scene.settle()
        assert {(protocol, each.error()) for protocol, each in made} == REFUSED


@requirement("PUB-10")
def test_port_of_stopped_container_does_not_lead_to_new_container_with_its_address(
    publish_network: PublishNetwork,
) -> None:
    """The port of a stopped container does not lead to a new container that gets its address."""
    web, *_ = found = publish_network.publish("web")
    assert all(
        published.serves(ATTACKER, publish_network.own(published.family)) for published in found
    )
    web.container.stop()
    for heir in publish_network.views(publish_network.container("heir")):
        own = publish_network.own(heir.family)
        with heir.open() as listening:
            assert listening.serves("heir", heir.own(), port=INSIDE)
            assert listening.delivered([PortCall(ATTACKER, own), PortCall(HOST, own)]) == []


@requirement("PUB-10")
def test_restarted_container_publishes_the_same_ports(publish_network: PublishNetwork) -> None:
    """A restarted container publishes the same ports as before, and they answer."""
    web, *_ = found = publish_network.publish("web")
    reported = web.container.facts().ports
    web.container.stop()
    web.container.start()
    assert web.container.facts().ports == reported
    assert all(
        published.serves(ATTACKER, publish_network.own(published.family)) for published in found
    )
