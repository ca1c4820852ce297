"""What a published port was made of ends with its container: rules, listeners, and reach."""

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
"""What a caller is told where nobody listens (RFC 1122)."""


def end(fair: PublishNetwork, container: Container, how: str) -> None:
    """Have a container end, in one of the ways in which they do."""
    match how:
        case "stopped":
            container.stop()
        case "removed":
            container.remove()
        case _:
            fair.scene.world.host.call(os.kill, container.facts().pid, signal.SIGKILL)
            until(fair.host, lambda: not container.facts().running, "the runtime knows of it")


@requirement("PUB-10")
@pytest.mark.parametrize("how", ["stopped", "removed", "killed"])
def test_rules_and_listeners_go_along(fair: PublishNetwork, how: str) -> None:
    """The host is what it was, its ports are free, and who calls is refused at once.

    Of the network's own, a knob of its link may stay turned, and a chain without rules may stay.
    """
    before, link = fair.host.snapshot(), fair.link()
    networks = re.compile(rf"sysctl net\.ipv4\.conf\.{re.escape(link)}\.|nft chain .*: new$")

    def made() -> list[str]:
        changes = before.changes(fair.host.snapshot())
        return [change for change in changes if not networks.match(change)]

    web, *_ = found = fair.opened("web")
    assert all(shop.serves(ATTACKER, fair.own(shop.family)) for shop in found)
    assert made() or not is_free(fair)
    end(fair, web.container, how)
    until(fair.host, lambda: not made(), "the host is what it was")
    until(fair.host, lambda: is_free(fair), "the port is free")
    for family in fair.families:
        assert_refused(fair, family)


def is_free(fair: PublishNetwork) -> bool:
    """Whether a program of the host's can have the port, on every address."""
    try:
        for family in fair.families:
            for transport in TRANSPORTS:
                Listener(fair.host, transport, family=family, port=fair.port).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def assert_refused(fair: PublishNetwork, family: Family) -> None:
    """Whoever calls, by whatever address of the host, is told so."""
    with ExitStack() as stack:
        made = [
            (protocol, stack.enter_context(client.Client(place, protocol, address, port=fair.port)))
            for caller, address in callers(fair.scene, family, OUTSIDE)
            for protocol in (Protocol.UDP, Protocol.TCP)
            if (place := fair.scene.place(caller))
        ]
        for _, each in made:
            each.say(b"is anybody there?")
        fair.scene.settle()
        assert {(protocol, each.told()) for protocol, each in made} == REFUSED


@requirement("PUB-10")
def test_nobody_inherits_the_port(fair: PublishNetwork) -> None:
    """Not who is given the address next: it hears who calls it, and nobody who calls the host."""
    web, *_ = found = fair.opened("web")
    assert all(shop.serves(ATTACKER, fair.own(shop.family)) for shop in found)
    web.container.stop()
    for heir in fair.shops(fair.container("heir")):
        own = fair.own(heir.family)
        with heir.open() as listening:
            assert listening.serves("heir", heir.own(), port=INSIDE)
            assert listening.overhears([PortCall(ATTACKER, own), PortCall(HOST, own)]) == []


@requirement("PUB-10")
def test_a_container_that_is_started_again_publishes_again(fair: PublishNetwork) -> None:
    """The same ports."""
    web, *_ = found = fair.opened("web")
    told = web.container.facts().ports
    web.container.stop()
    web.container.start()
    assert web.container.facts().ports == told
    assert all(shop.serves(ATTACKER, fair.own(shop.family)) for shop in found)
