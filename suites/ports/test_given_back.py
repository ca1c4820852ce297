"""What a published port was made of ends with its container: rules, listeners, and reach."""

from __future__ import annotations

import os
import signal

import pytest

from harness.call import Call
from harness.container import Container
from harness.marks import requirement
from harness.model import ATTACKER, HOST, INTERNET, NS1, Family, Protocol
from harness.place import Place
from harness.scene import Scene
from harness.traffic import TRANSPORTS, Ear
from harness.wait import until
from harness.world.snapshot import Snapshot
from suites.ports.shop import INSIDE, OWN, both, callers, home, shops

OUTSIDE = (ATTACKER, INTERNET, NS1)
REFUSED = {"reset", "port-unreachable"}
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
def test_rules_and_listeners_go_along(scene: Scene, family: Family, how: str) -> None:
    """The host is what it was, its ports are free, and who calls is refused at once."""
    host, mode = scene.place(HOST), home(scene, family)
    scene.container("stays", mode, ports=both(OWN + 1))  # what others' ports need is to stay
    before = Snapshot.of(host)
    web = scene.container("web", mode, ports=both(OWN))
    for shop in shops(scene, web, family, OWN):
        assert shop.serves(ATTACKER, scene.world.address(HOST, family))
    assert before.changes(Snapshot.of(host))
    end(scene, web, how)
    until(host, lambda: not before.changes(Snapshot.of(host)), "the host is what it was")
    assert_free(host, family)
    assert_refused(scene, family)


def assert_free(host: Place, family: Family) -> None:
    """A program of the host's can have the port, on every address."""
    for transport in TRANSPORTS:
        Ear(host, transport, family=family, port=OWN).close()


def assert_refused(scene: Scene, family: Family) -> None:
    """Whoever calls, by whatever address of the host, is told so."""
    for caller, address in callers(scene, family, OUTSIDE):
        for protocol in (Protocol.UDP, Protocol.TCP):
            with Call(scene.place(caller), protocol, address, port=OWN) as call:
                call.say(b"is anybody there?")
                scene.settle()
                assert call.told() in REFUSED, f"{caller} calls {address} over {protocol}"


@requirement("PUB-10")
@pytest.mark.parametrize("how", ["stopped", "removed", "killed"])
def test_nobody_inherits_the_port(scene: Scene, family: Family, how: str) -> None:
    """Not who is given the address next; who asks for the port gets it, and is served."""
    mode, own = home(scene, family), scene.world.address(HOST, family)
    web = scene.container("web", mode, ports=both(OWN))
    for shop in shops(scene, web, family, OWN):
        assert shop.serves(ATTACKER, own)
    end(scene, web, how)
    heir = scene.container("heir", mode)
    for shop in shops(scene, heir, family, OWN):
        assert shop.misses(ATTACKER, own)
        assert shop.misses(HOST, own)
    new = scene.container("new", mode, ports=both(OWN))
    for shop in shops(scene, new, family, OWN):
        assert shop.serves(ATTACKER, own)
    with Ear(heir.net, "udp", family=family, port=INSIDE) as ear:
        assert ear.hears(scene.place(HOST), at=heir.net.address(family))


@requirement("PUB-10")
def test_a_container_that_is_started_again_publishes_again(scene: Scene, family: Family) -> None:
    """The same ports, as often as it is."""
    own = scene.world.address(HOST, family)
    web = scene.container("web", home(scene, family), ports=both(OWN))
    told = web.facts().ports
    for _ in range(2):
        web.stop()
        web.start()
        assert web.facts().ports == told
        for shop in shops(scene, web, family, OWN):
            assert shop.serves(ATTACKER, own)
