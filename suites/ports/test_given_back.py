"""What a published port was made of ends with its container: rules, listeners, and reach."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

from harness import call
from harness.container import Container
from harness.marks import requirement
from harness.model import ATTACKER, HOST, INTERNET, NS1, Family, Protocol
from harness.place import Place
from harness.scene import Scene
from harness.traffic import TRANSPORTS, Ear
from harness.wait import until
from harness.world.snapshot import Snapshot
from suites.ports.shop import INSIDE, OWN, Call, callers, home, opened, shops

OUTSIDE = (ATTACKER, INTERNET, NS1)
REFUSED = {(Protocol.TCP, "reset"), (Protocol.UDP, "port-unreachable")}
"""What a caller is told where nobody listens (RFC 1122)."""


def end(scene: Scene, container: Container, how: str) -> None:
    """Have a container end, in one of the ways in which they do."""
    match how:
        case "stopped":
            container.stop()
        case "removed":
            container.remove()
        case _:
            scene.world.host.call(os.kill, container.facts().pid, signal.SIGKILL)
            until(
                scene.place(HOST), lambda: not container.facts().running, "the runtime knows of it"
            )


@requirement("PUB-10")
@pytest.mark.parametrize("how", ["stopped", "removed", "killed"])
def test_rules_and_listeners_go_along(fair: Scene, family: Family, how: str) -> None:
    """The host is what it was, its ports are free, and who calls is refused at once."""
    host = fair.place(HOST)
    before = Snapshot.of(host)
    web, *_ = found = opened(fair, family)
    for shop in found:
        assert shop.serves(ATTACKER, fair.world.address(HOST, family))
    assert before.changes(Snapshot.of(host))
    end(fair, web.container, how)
    until(host, lambda: not before.changes(Snapshot.of(host)), "the host is what it was")
    assert_free(host, family)
    assert_refused(fair, family)


def assert_free(host: Place, family: Family) -> None:
    """A program of the host's can have the port, on every address."""
    for transport in TRANSPORTS:
        Ear(host, transport, family=family, port=OWN).close()


def assert_refused(scene: Scene, family: Family) -> None:
    """Whoever calls, by whatever address of the host, is told so."""
    made = [
        (protocol, call.Call(scene.place(caller), protocol, address, port=OWN))
        for caller, address in callers(scene, family, OUTSIDE)
        for protocol in (Protocol.UDP, Protocol.TCP)
    ]
    with ExitStack() as stack:
        for _, each in made:
            stack.enter_context(each)
        for protocol, each in made:
            if protocol is Protocol.UDP:
                each.say(b"is anybody there?")
            else:
                each.say()
        scene.settle()
        assert {(protocol, each.told()) for protocol, each in made} == REFUSED


@requirement("PUB-10")
def test_nobody_inherits_the_port(fair: Scene, family: Family) -> None:
    """Not who is given the address next: it hears who calls it, and nobody who calls the host."""
    own = fair.world.address(HOST, family)
    web, *_ = found = opened(fair, family)
    assert all(shop.serves(ATTACKER, own) for shop in found)
    web.container.stop()
    heir = fair.container("heir", home(family))
    for shop in shops(heir, fair, family):
        with shop.open() as listening:
            assert listening.overhears([Call(HOST, listening.own(), INSIDE)])
            assert listening.overhears([Call(ATTACKER, own), Call(HOST, own)]) == []


@requirement("PUB-10")
def test_a_container_that_is_started_again_publishes_again(fair: Scene, family: Family) -> None:
    """The same ports."""
    web, *_ = found = opened(fair, family)
    told = web.container.facts().ports
    web.container.stop()
    web.container.start()
    assert web.container.facts().ports == told
    for shop in found:
        assert shop.serves(ATTACKER, fair.world.address(HOST, family))
