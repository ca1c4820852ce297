"""A host port that somebody has is refused to everybody else; nothing is left of the attempt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.addresses import LOOPBACKS
from harness.guard import Guard
from harness.marks import requirement
from harness.model import ATTACKER, HOST, Family, Publish
from harness.scene import Scene
from harness.topology import Address
from harness.traffic import ANYWHERE, Ear, Transport
from suites.ports.shop import INSIDE, OWN, Shop, home, opened


def places(scene: Scene, family: Family) -> Iterator[Address | None]:
    """Where a port can be published: everywhere, on the host's address, on its loopback."""
    yield from (None, scene.world.address(HOST, family), LOOPBACKS[family])


def refused(scene: Scene, runtime: Adapter, guard: Guard, family: Family, publish: Publish) -> None:
    """A container that publishes this does not start, and nothing is left of it."""
    # One that could be published comes first: it is not to be left behind either.
    before = Publish(OWN + 9, INSIDE, publish.protocol)
    with guard.holding():
        scene.refusal("late", home(scene, family), ports=(before, publish))
        with pytest.raises(RuntimeRefused):
            runtime.inspect("late")
    with Ear(scene.place(HOST), _transport(publish), family=family, port=OWN + 9):
        pass


def _transport(publish: Publish) -> Transport:
    return "tcp" if publish.protocol == "tcp" else "udp"


@requirement("PUB-7")
def test_a_port_of_another_containers_is_refused(
    market: Scene, runtime: Adapter, shop: Shop, family: Family, guard: Guard
) -> None:
    """Everywhere, and on any one address; the container that has it goes on to serve."""
    for where in places(market, family):
        publish = Publish(shop.port, INSIDE, shop.transport, where)
        refused(market, runtime, guard, family, publish)
        assert shop.serves(ATTACKER, market.world.address(HOST, family))
        assert shop.serves(HOST, LOOPBACKS[family])


@requirement("PUB-7")
def test_a_port_published_on_one_address_is_refused_everywhere(
    scene: Scene, runtime: Adapter, transport: Transport, family: Family, guard: Guard
) -> None:
    """And on that address; beside it, it can be published."""
    own = scene.world.address(HOST, family)
    first = opened(scene, transport, family, name="first", at=own)
    for where in (None, own):
        refused(scene, runtime, guard, family, Publish(OWN, INSIDE, transport, where))
        assert first.serves(ATTACKER, own)
    beside = opened(scene, transport, family, name="beside", at=LOOPBACKS[family])
    assert beside.serves(HOST, LOOPBACKS[family])


@requirement("PUB-7")
def test_a_port_of_a_program_of_the_hosts_is_refused(
    scene: Scene, runtime: Adapter, transport: Transport, family: Family, guard: Guard
) -> None:
    """Which goes on to hear; once it has gone, the same start succeeds."""
    host, own = scene.place(HOST), scene.world.address(HOST, family)
    home(scene, family)
    for taken, wanted in ((ANYWHERE[family], None), (own, None), (own, own)):
        with Ear(host, transport, address=taken, port=OWN) as program:
            refused(scene, runtime, guard, family, Publish(OWN, INSIDE, transport, wanted))
            assert program.hears(scene.place(ATTACKER), at=own)
    assert opened(scene, transport, family).serves(ATTACKER, own)
