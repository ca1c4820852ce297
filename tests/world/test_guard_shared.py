"""Tests of the guard with shared scenes.

A scene is the networks and containers of a test. The guard checks a shared scene's resources before
its first and after its last test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Interface

import pytest

from harness.model.plan import HOST
from harness.world.build import World
from harness.world.leak_guard import LeakGuard, Violation
from linux import rtnetlink
from linux.netlink import Netlink, Request

SUBNET = IPv4Network("10.99.0.0/24")
LINK = 999


@pytest.fixture
def guard(world: World) -> Iterator[LeakGuard]:
    """Return a second guard, separate from the guard of these tests."""
    with LeakGuard(world) as made:
        yield made


def send(world: World, *requests: Request) -> None:
    """Send requests to the host's kernel."""
    with Netlink(world.namespaces[HOST]) as opened:
        opened.send(requests)


@contextmanager
def route(world: World) -> Iterator[None]:
    """Add a route while the body runs."""
    send(world, made := rtnetlink.add_blackhole(SUBNET))
    yield
    send(world, made._replace(kind=rtnetlink.RTM_DELROUTE, flags=0))


def a_test(guard: LeakGuard) -> None:
    """Run the guard's checks for a test that changes nothing."""
    guard.begin()
    guard.check()


def test_shared_scene_is_no_leak_of_any_test(guard: LeakGuard, world: World) -> None:
    """The guard reports no leak for tests that run before, during or after a shared scene."""
    a_test(guard)
    guard.share()
    with route(world):
        a_test(guard)
        guard.share()
        a_test(guard)
        guard.unshare()
        a_test(guard)
    guard.unshare()
    a_test(guard)


def test_leftover_of_shared_scenes_is_reported_after_the_last_scene(
    guard: LeakGuard, world: World
) -> None:
    """A leftover of shared scenes is reported once, after the last of them ends."""
    guard.share()
    guard.share()
    with route(world):
        a_test(guard)
        guard.unshare()
        with pytest.raises(Violation, match=str(SUBNET)):
            guard.unshare()
        a_test(guard)
        guard.share()
        guard.unshare()


def test_leak_between_two_tests_is_reported(guard: LeakGuard, world: World) -> None:
    """The guard also checks between two tests, when shared scenes are created and removed."""
    a_test(guard)
    with route(world):
        guard.share()
        with pytest.raises(Violation, match=str(SUBNET)):
            guard.unshare()


def test_tentative_address_in_first_snapshot_is_no_leak(guard: LeakGuard, world: World) -> None:
    """A tentative address in the first snapshot is no leak.

    The kernel adds the address's route only after duplicate address detection.
    """
    send(
        world,
        rtnetlink.add_veth("early0", "early1", index=LINK, peer_index=LINK + 1),
        rtnetlink.set_link(LINK + 1, up=True),
        rtnetlink.add_address(LINK, IPv6Interface("fd99::1/64"), nodad=False),
    )
    try:
        guard.share()
        a_test(guard)  # the test waits for the address
        guard.unshare()
    finally:
        send(world, rtnetlink.del_link("early0"))
