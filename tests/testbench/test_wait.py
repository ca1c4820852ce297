"""Waiting for a condition in a namespace."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest

from harness.testbench.netns_view import fixed, until
from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS

MANY = 2000


def test_lost_notifications_count_as_news() -> None:
    """As when a thousand containers end during the wait."""
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


def test_unmet_condition_is_named() -> None:
    """After the bound."""
    with NetNS.new() as space, pytest.raises(TimeoutError, match=r"in somewhere, .*: pigs fly"):
        until(fixed("somewhere", space), lambda: False, "pigs fly", bound=0.05)
