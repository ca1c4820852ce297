"""Waiting for carriers and local addresses, which the kernel sets late."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.readiness import await_carrier, await_local

NEAR, FAR = 7, 8
OFTEN = 30
"""Repetitions in which the kernel is late at least once."""


def pair(netlink: Netlink, *, far: bool) -> None:
    """Make a veth pair whose near end comes up first, then its `far` end if wanted."""
    netlink.send([rtnetlink.add_veth("near", "far", index=NEAR, peer_index=FAR)])
    if far:
        netlink.send([rtnetlink.set_link(FAR, up=True)])


def test_await_carrier_returns_when_both_ends_run(space: NetNS) -> None:
    """An end that is up before its peer carries only after a kernel worker has run."""
    with Netlink(space) as netlink:
        for _ in range(OFTEN):
            pair(netlink, far=True)
            await_carrier(netlink, ["near", "far"])
            assert {link.running for link in rtnetlink_dump.links(netlink)} == {True}
            netlink.send([rtnetlink.del_link("near")])


def test_await_carrier_names_a_link_whose_peer_is_down(space: NetNS) -> None:
    """The message says what to check."""
    with Netlink(space) as netlink:
        pair(netlink, far=False)
        with pytest.raises(TimeoutError, match=r"near has no carrier .* is its peer up"):
            await_carrier(netlink, ["near"], bound=0.05)


def test_await_local_returns_when_ipv6_is_received(space: NetNS) -> None:
    """Before that one can bind to the address, but packets to it are dropped."""
    with Netlink(space) as netlink:
        netlink.send([rtnetlink.add_bridge("br0", index=NEAR)])
        for number in range(1, OFTEN):
            own = ip_interface(f"fd00::{number:x}/64")
            netlink.send([rtnetlink.add_address(NEAR, own)])
            await_local(netlink, [own.ip])
            assert rtnetlink_dump.route_to(netlink, own.ip).local


def test_await_local_names_a_missing_ipv6_address(space: NetNS) -> None:
    """An IPv4 address would receive at once and is not checked."""
    with Netlink(space) as netlink:
        await_local(netlink, [ip_address("192.0.2.1")], bound=0)
        with pytest.raises(TimeoutError, match=r"fd00::1 takes no packets .* is it there"):
            await_local(netlink, [ip_address("fd00::1")], bound=0.05)
