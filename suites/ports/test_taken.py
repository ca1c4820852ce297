"""A host port that somebody has is refused to everybody else; nothing is left of the attempt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import pytest

from harness.adapters.protocol import RuntimeRefused
from harness.addresses import LOOPBACKS
from harness.guard import Guard
from harness.marks import requirement
from harness.model import ATTACKER, HOST, Family, Publish
from harness.scene import Scene
from harness.traffic import ANYWHERE, TRANSPORTS, Ear
from suites.ports.shop import INSIDE, OWN, Shop, home, opened

BESIDE: Final = OWN + 1
"""A port that nobody has."""


def assert_refused(fair: Scene, family: Family, publish: Publish) -> None:
    """A container that publishes this does not start."""
    # One that could be published comes first: it is not to be left behind either.
    beside = replace(publish, host_port=BESIDE, host_ip=None)
    fair.refusal("late", home(family), ports=(beside, publish))
    with pytest.raises(RuntimeRefused):
        fair.runtime.inspect("late")


@contextmanager
def nothing_left(fair: Scene, family: Family, guard: Guard) -> Iterator[None]:
    """Nothing is left of what was refused in the body: nothing in the kernel, and no port taken."""
    with guard.holding():
        yield
    for transport in TRANSPORTS:
        Ear(fair.place(HOST), transport, family=family, port=BESIDE).close()


@requirement("PUB-7")
def test_a_port_of_another_containers_is_refused(
    fair: Scene, shop: Shop, family: Family, guard: Guard
) -> None:
    """Everywhere, and on any one address; the container that has it goes on to serve."""
    own = fair.world.address(HOST, family)
    with nothing_left(fair, family, guard):
        for where in (None, own, LOOPBACKS[family]):
            assert_refused(fair, family, Publish(shop.port, INSIDE, shop.transport, where))
    assert shop.serves(ATTACKER, own)
    assert shop.serves(HOST, LOOPBACKS[family])


@requirement("PUB-7")
def test_a_port_published_on_one_address_is_refused_everywhere(
    fair: Scene, family: Family, guard: Guard
) -> None:
    """On another address it can be published."""
    own = fair.world.address(HOST, family)
    first = opened(fair, family, name="first", at=own)
    with nothing_left(fair, family, guard):
        for transport in TRANSPORTS:
            assert_refused(fair, family, Publish(OWN, INSIDE, transport))
    for shop in opened(fair, family, name="second", at=LOOPBACKS[family]):
        assert shop.serves(HOST, LOOPBACKS[family])
    assert all(shop.serves(ATTACKER, own) for shop in first)


@requirement("PUB-7")
def test_a_port_of_a_program_of_the_hosts_is_refused(
    fair: Scene, family: Family, guard: Guard
) -> None:
    """Which goes on to hear; once it has gone, the same start succeeds."""
    host, own = fair.place(HOST), fair.world.address(HOST, family)
    with nothing_left(fair, family, guard):
        for transport in TRANSPORTS:
            for taken, wanted in ((ANYWHERE[family], own), (own, None)):
                with Ear(host, transport, address=taken, port=OWN) as program:
                    assert_refused(fair, family, Publish(OWN, INSIDE, transport, wanted))
                    assert program.hears(fair.place(ATTACKER), at=own)
    assert all(shop.serves(ATTACKER, own) for shop in opened(fair, family))
