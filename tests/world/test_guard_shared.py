"""Tests of the guard for shared resources: from before the first until after the last."""

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
    """One that guards these tests' tests, not these."""
    with LeakGuard(world) as made:
        yield made


def send(world: World, *requests: Request) -> None:
    """To the host."""
    with Netlink(world.namespaces[HOST]) as opened:
        opened.send(requests)


@contextmanager
def route(world: World) -> Iterator[None]:
    """One that is there meanwhile."""
    send(world, made := rtnetlink.add_blackhole(SUBNET))
    yield
    send(world, made._replace(kind=rtnetlink.RTM_DELROUTE, flags=0))


def a_test(guard: LeakGuard) -> None:
    """One that does nothing."""
    guard.begin()
    guard.check()


def test_what_is_shared_is_nobodys_leak(guard: LeakGuard, world: World) -> None:
    """Neither of the tests before it, nor of those that share it, nor of those after it."""
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


def test_what_something_shared_leaves_is_found_once_all_is_gone(
    guard: LeakGuard, world: World
) -> None:
    """And told once, though others were shared with it, and go later."""
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


def test_what_came_since_the_last_test_is_found(guard: LeakGuard, world: World) -> None:
    """No moment between two tests goes unguarded, were something shared made or removed in it."""
    a_test(guard)
    with route(world):
        guard.share()
        with pytest.raises(Violation, match=str(SUBNET)):
            guard.unshare()


def test_an_address_that_is_looked_at_too_early_is_no_leak(guard: LeakGuard, world: World) -> None:
    """Its route comes when nobody has answered for it, which may be after the first look."""
    send(
        world,
        rtnetlink.add_veth("early0", "early1", index=LINK, peer_index=LINK + 1),
        rtnetlink.set_link(LINK + 1, up=True),
        rtnetlink.add_address(LINK, IPv6Interface("fd99::1/64"), nodad=False),
    )
    try:
        guard.share()
        a_test(guard)  # which waits for the address
        guard.unshare()
    finally:
        send(world, rtnetlink.del_link("early0"))
