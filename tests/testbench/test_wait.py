"""What is waited for is looked at until it holds, or is told to have failed."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest

from harness.testbench.netns_view import fixed, until
from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS

MANY = 2000


def test_more_news_than_there_is_room_for_is_news() -> None:
    """As when a thousand containers go while it is waited for one."""
    looks: list[None] = []
    address = IPv4Interface("192.0.2.1/32")
    with NetNS.new() as space, Netlink(space) as opened:
        change = [
            rtnetlink.add_address(rtnetlink.LO, address),
            rtnetlink.del_address(rtnetlink.LO, address),
        ]

        def condition() -> bool:
            if not looks:
                opened.send(change * (MANY // 2))
            looks.append(None)
            return len(looks) > 1

        until(fixed("somewhere", space), condition, "it has been looked at twice")


def test_what_does_not_come_about_is_told() -> None:
    """By its name, once the time is up."""
    with NetNS.new() as space, pytest.raises(TimeoutError, match=r"in somewhere, .*: pigs fly"):
        until(fixed("somewhere", space), lambda: False, "pigs fly", bound=0.05)
