"""What the kernel does a little later than it says, and how that is waited for."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.readiness import await_carrier, await_local

NEAR, FAR = 7, 8
OFTEN = 30
"""So often the kernel is late at least once, by far."""


def pair(netlink: Netlink, *, far: bool) -> None:
    """A veth pair whose near end is up, before its `far` end if that is to be so at all."""
    netlink.send([rtnetlink.add_veth("near", "far", index=NEAR, peer_index=FAR)])
    if far:
        netlink.send([rtnetlink.set_link(FAR, up=True)])


def test_a_link_carries_once_it_was_waited_for(space: NetNS) -> None:
    """An end that is up before its peer carries only when a worker has seen to it."""
    with Netlink(space) as netlink:
        for _ in range(OFTEN):
            pair(netlink, far=True)
            await_carrier(netlink, ["near", "far"])
            assert {link.running for link in rtnetlink_dump.links(netlink)} == {True}
            netlink.send([rtnetlink.del_link("near")])


def test_a_link_without_a_peer_that_is_up_is_named(space: NetNS) -> None:
    """It will never carry; the message says what to look at."""
    with Netlink(space) as netlink:
        pair(netlink, far=False)
        with pytest.raises(TimeoutError, match=r"near has no carrier .* is its peer up"):
            await_carrier(netlink, ["near"], bound=0.05)


def test_an_address_is_local_once_it_was_waited_for(space: NetNS) -> None:
    """Of IPv6 one can bind to it at once, while what comes for it is still thrown away."""
    with Netlink(space) as netlink:
        netlink.send([rtnetlink.add_bridge("br0", index=NEAR)])
        for number in range(1, OFTEN):
            own = ip_interface(f"fd00::{number:x}/64")
            netlink.send([rtnetlink.add_address(NEAR, own)])
            await_local(netlink, [own.ip])
            assert rtnetlink_dump.route_to(netlink, own.ip).local


def test_an_address_that_is_not_there_is_named(space: NetNS) -> None:
    """One of IPv4 would be local by now, so that nobody is asked."""
    with Netlink(space) as netlink:
        await_local(netlink, [ip_address("192.0.2.1")], bound=0)
        with pytest.raises(TimeoutError, match=r"fd00::1 takes no packets .* is it there"):
            await_local(netlink, [ip_address("fd00::1")], bound=0.05)
