"""Tests of the state of a user-mode stack, in the terms of the kernel."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

from harness.probe import quiescence, remote, sockets
from linux import rtnetlink, rtnetlink_dump
from linux.netns import NetNS

ETH0 = 2


def route(destination: str, family: int, *, oif: int = ETH0, via: str = "") -> rtnetlink_dump.Route:
    """Return a route as the agent's rtnetlink reports it."""
    kind = IPv6Network if ":" in destination else IPv4Network
    return rtnetlink_dump.Route(
        kind(destination) if destination else None,
        IPv4Address(via) if via else None,
        oif,
        family,
    )


def test_userspace_stack_routes_of_lo_and_other_family_are_omitted() -> None:
    """A gVisor stack has one routing table and returns all of it for either family."""
    wanted = [route("10.1.0.0/16", 4), route("", 4, via="10.1.0.1"), route("fd00::/64", 6)]
    told = [
        route("127.0.0.0/8", 4, oif=rtnetlink.LO),
        route("fd00::/64", 4),
        route("10.1.0.0/16", 6),
        route("", 6, via="10.1.0.1"),
        *wanted,
    ]
    assert remote.of_main_table(told) == wanted


def test_kernel_netns_needs_no_patience() -> None:
    """Silence in a kernel netns is final at once."""
    with NetNS.own() as own:
        assert quiescence.agent_patience([own]) == 0.0
        assert not sockets.has_own_stack(own)
