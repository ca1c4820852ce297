"""Host ports that are in use already: publishing them is refused and leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from harness.adapters.protocol import RuntimeRefused
from harness.model.plan import ATTACKER, HOST, Publish
from harness.plugin.marks import requirement
from harness.testbench.listener import ANYWHERE, TRANSPORTS, Listener
from harness.testbench.scene import LOOPBACKS
from harness.world.leak_guard import LeakGuard
from suites.ports.published import INSIDE, PublishNetwork


def assert_refused(publish_network: PublishNetwork, publish: Publish) -> None:
    """Assert that a container with this port mapping does not start."""
    # A free port comes first, which the runtime must release again.
    first = replace(publish, host_port=publish_network.port + 1, host_ip=None)
    publish_network.scene.refusal("late", publish_network.home, ports=(first, publish))
    with pytest.raises(RuntimeRefused):
        publish_network.scene.runtime.inspect("late")


@contextmanager
def nothing_left(publish_network: PublishNetwork, guard: LeakGuard) -> Iterator[None]:
    """Assert that refused attempts in the body leave no kernel state and no bound port."""
    with guard.holding():
        yield
    for family in publish_network.families:
        for transport in TRANSPORTS:
            Listener(
                publish_network.host, transport, family=family, port=publish_network.port + 1
            ).close()


@requirement("PUB-7")
def test_port_published_by_another_container_is_refused(
    publish_network: PublishNetwork, guard: LeakGuard
) -> None:
    """A host port that another container publishes is refused, on all addresses and on one.

    The other container's port still answers, and the attempt leaves nothing.
    """
    found = publish_network.publish("first")
    with nothing_left(publish_network, guard):
        for transport in TRANSPORTS:
            assert_refused(publish_network, Publish(publish_network.port, INSIDE, transport))
            for family in publish_network.families:
                assert_refused(
                    publish_network,
                    Publish(publish_network.port, INSIDE, transport, publish_network.own(family)),
                )
    for published in found:
        assert published.serves(ATTACKER, publish_network.own(published.family))
        assert published.serves(HOST, LOOPBACKS[published.family])


@requirement("PUB-7")
def test_port_published_on_one_address_is_refused_on_all_addresses(
    publish_network: PublishNetwork, guard: LeakGuard
) -> None:
    """A port published on one address is refused on all addresses, but allowed on another one."""
    first = publish_network.publish("first", at=publish_network.own)
    with nothing_left(publish_network, guard):
        for transport in TRANSPORTS:
            assert_refused(publish_network, Publish(publish_network.port, INSIDE, transport))
    for published in publish_network.publish("second", at=LOOPBACKS.__getitem__):
        assert published.serves(HOST, LOOPBACKS[published.family])
    assert all(
        published.serves(ATTACKER, publish_network.own(published.family)) for published in first
    )


@requirement("PUB-7")
def test_port_of_host_process_is_refused(publish_network: PublishNetwork, guard: LeakGuard) -> None:
    """A port on which a host process listens is refused, and the process still answers.

    The port can be published after the process has closed it.
    """
    with nothing_left(publish_network, guard):
        for family in publish_network.families:
            own = publish_network.own(family)
            for transport in TRANSPORTS:
                for taken, wanted in ((ANYWHERE[family], own), (own, None)):
                    with Listener(
                        publish_network.host, transport, address=taken, port=publish_network.port
                    ) as program:
                        assert_refused(
                            publish_network,
                            Publish(publish_network.port, INSIDE, transport, wanted),
                        )
                        assert program.reached_from(publish_network.scene.netns(ATTACKER), at=own)
    assert all(
        published.serves(ATTACKER, publish_network.own(published.family))
        for published in publish_network.publish("late")
    )
