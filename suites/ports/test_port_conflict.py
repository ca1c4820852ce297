"""A host port that somebody has is refused to everybody else; nothing is left of the attempt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from harness.adapters.protocol import RuntimeRefused
from harness.model.plan import ATTACKER, HOST, Publish
from harness.plugin.marks import requirement
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.listener import ANYWHERE, TRANSPORTS, Listener
from harness.world.guard import LeakGuard
from suites.ports.published import INSIDE, PublishNetwork


def assert_refused(fair: PublishNetwork, publish: Publish) -> None:
    """A container that publishes this does not start."""
    # One that could be published comes first: it is not to be left behind either.
    first = replace(publish, host_port=fair.port + 1, host_ip=None)
    fair.scene.refusal("late", fair.home, ports=(first, publish))
    with pytest.raises(RuntimeRefused):
        fair.scene.runtime.inspect("late")


@contextmanager
def nothing_left(fair: PublishNetwork, guard: LeakGuard) -> Iterator[None]:
    """Nothing is left of what was refused in the body: nothing in the kernel, and no port taken."""
    with guard.holding():
        yield
    for family in fair.families:
        for transport in TRANSPORTS:
            Listener(fair.host, transport, family=family, port=fair.port + 1).close()


@requirement("PUB-7")
def test_a_port_of_another_containers_is_refused(fair: PublishNetwork, guard: LeakGuard) -> None:
    """Everywhere, and on any one address; the container that has it goes on to serve."""
    found = fair.opened("first")
    with nothing_left(fair, guard):
        for transport in TRANSPORTS:
            assert_refused(fair, Publish(fair.port, INSIDE, transport))
            for family in fair.families:
                assert_refused(fair, Publish(fair.port, INSIDE, transport, fair.own(family)))
    for shop in found:
        assert shop.serves(ATTACKER, fair.own(shop.family))
        assert shop.serves(HOST, LOOPBACKS[shop.family])


@requirement("PUB-7")
def test_a_port_published_on_one_address_is_refused_everywhere(
    fair: PublishNetwork, guard: LeakGuard
) -> None:
    """On another address it can be published."""
    first = fair.opened("first", at=fair.own)
    with nothing_left(fair, guard):
        for transport in TRANSPORTS:
            assert_refused(fair, Publish(fair.port, INSIDE, transport))
    for shop in fair.opened("second", at=LOOPBACKS.__getitem__):
        assert shop.serves(HOST, LOOPBACKS[shop.family])
    assert all(shop.serves(ATTACKER, fair.own(shop.family)) for shop in first)


@requirement("PUB-7")
def test_a_port_of_a_program_of_the_hosts_is_refused(
    fair: PublishNetwork, guard: LeakGuard
) -> None:
    """In whichever family it listens; it goes on to hear. Once it has gone a start succeeds."""
    with nothing_left(fair, guard):
        for family in fair.families:
            own = fair.own(family)
            for transport in TRANSPORTS:
                for taken, wanted in ((ANYWHERE[family], own), (own, None)):
                    with Listener(fair.host, transport, address=taken, port=fair.port) as program:
                        assert_refused(fair, Publish(fair.port, INSIDE, transport, wanted))
                        assert program.hears(fair.scene.place(ATTACKER), at=own)
    assert all(shop.serves(ATTACKER, fair.own(shop.family)) for shop in fair.opened("late"))
