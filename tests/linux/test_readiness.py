"""Tests of waiting for carriers, addresses and bridge ports, which become ready late."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from ipaddress import IPv6Interface, ip_address, ip_interface
from typing import Any

import pytest

from linux import netns, rtnetlink, rtnetlink_dump
from linux.netlink import NLM_F_CREATE, Netlink, Request, attr, u32
from linux.netns import NetNS
from linux.readiness import NeverReady, await_carrier, await_local, await_ready
from tests.support.probing import control, settle
from tests.world.pair import PORT, pair

Pair = tuple[NetNS, NetNS]
NEAR, FAR = 7, 8
OFTEN = 30
"""Repetitions in which the kernel is late at least once."""


def add_veth(netlink: Netlink, *, far: bool) -> None:
    """Make a veth pair whose near end comes up first, then its `far` end if wanted."""
    netlink.send([rtnetlink.add_veth("near", "far", index=NEAR, peer_index=FAR)])
    if far:
        netlink.send([rtnetlink.set_link(FAR, up=True)])


def test_await_carrier_returns_when_both_ends_run(space: NetNS) -> None:
    """`await_carrier` returns when both ends of a veth pair run.

    An end that is up before its peer carries only after a kernel worker has run.
    """
    with Netlink(space) as netlink:
        for _ in range(OFTEN):
            add_veth(netlink, far=True)
            await_carrier(netlink, ["near", "far"])
            assert {link.running for link in rtnetlink_dump.links(netlink)} == {True}
            netlink.send([rtnetlink.del_link("near")])


def test_await_carrier_names_a_link_with_peer_down(space: NetNS) -> None:
    """The error of `await_carrier` names a link with a peer that is down.

    The message says what to check.
    """
    with Netlink(space) as netlink:
        add_veth(netlink, far=False)
        with pytest.raises(TimeoutError, match=r"near has no carrier .* check that its peer is up"):
            await_carrier(netlink, ["near"], bound=0.05)


def test_await_local_returns_when_ipv6_is_received(space: NetNS) -> None:
    """`await_local` returns when packets to an IPv6 address are received.

    Before that one can bind to the address, but packets to it are dropped.
    """
    with Netlink(space) as netlink:
        netlink.send([rtnetlink.add_bridge("br0", index=NEAR)])
        for number in range(1, OFTEN):
            own = ip_interface(f"fd00::{number:x}/64")
            netlink.send([rtnetlink.add_address(NEAR, own)])
            await_local(netlink, [own.ip])
            assert rtnetlink_dump.route_to(netlink, own.ip).local


def test_await_local_names_a_missing_ipv6_address(space: NetNS) -> None:
    """The error of `await_local` names a missing IPv6 address.

    An IPv4 address receives at once and is not checked.
    """
    with Netlink(space) as netlink:
        await_local(netlink, [ip_address("192.0.2.1")], bound=0)
        with pytest.raises(
            TimeoutError, match=r"fd00::1 accepts no packets .* check that it is assigned"
        ):
            await_local(netlink, [ip_address("fd00::1")], bound=0.05)


# --- a whole namespace ------------------------------------------------------------

OWN, PEER, THERE = "fd00::1/64", "fd00::2/64", "fd00::ffff/64"


@pytest.fixture
def bare() -> Iterator[Pair]:
    """Connect two namespaces; duplicate address detection takes a tenth of a second."""
    with pair([], []) as both:
        for space in both:
            netns.write_sysctls(
                space,
                {
                    "net.ipv6.conf.eth0.accept_dad": 1,
                    "net.ipv6.conf.eth0.router_solicitation_delay": 0,
                    "net.ipv6.neigh.eth0.retrans_time_ms": 100,
                },
            )
        yield both


@pytest.fixture
def ends6() -> Iterator[Pair]:
    """Connect two namespaces, with an IPv6 address at one end."""
    with pair([], [THERE]) as both:
        yield both


def give(space: NetNS, text: str, index: int = PORT) -> None:
    """Give a link an address with duplicate address detection."""
    with Netlink(space) as netlink:
        netlink.send([rtnetlink.add_address(index, IPv6Interface(text), nodad=False)])


def address_state(space: NetNS, text: str) -> tuple[bool, bool]:
    """Return whether an address is tentative, and whether it failed."""
    with Netlink(space) as netlink:
        (found,) = (a for a in rtnetlink_dump.addresses(netlink) if str(a.address) == text)
    return found.tentative, found.failed


def test_tentative_address_is_awaited_without_polling(
    bare: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for a tentative address ends on a kernel notification, without polling."""
    one, other = bare
    woken: list[bool] = []

    def waited(*given: Any) -> tuple[list[Any], ...]:
        found = wait(*given)
        woken.append(bool(found[0]))
        return found

    wait = select.select
    monkeypatch.setattr(select, "select", waited)
    for space, text in ((one, OWN), (other, PEER)):
        netns.write_sysctls(
            space, {"net.ipv6.conf.eth0.dad_transmits": 10}
        )  # else duplicate detection may have ended
        give(space, text)
        assert address_state(space, text) == (True, False)
    await_ready(bare)
    assert woken
    assert all(woken)
    assert address_state(one, OWN) == address_state(other, PEER) == (False, False)


def test_address_without_duplicate_detection_is_awaited_until_reachable(ends6: Pair) -> None:
    """An address without duplicate address detection is awaited until it is reachable.

    Neighbours reach the address after a short delay.
    """
    one, other = ends6
    fresh = [IPv6Interface(f"fd00::{number:x}/64") for number in range(1, 100)]
    with Netlink(one) as netlink, other.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        netlink.send([rtnetlink.add_address(PORT, address) for address in fresh])
        await_ready([one])
        assert rtnetlink_dump.local_addresses(netlink) >= {address.ip for address in fresh}
        client.sendto(b"!", (str(fresh[-1].ip), 9))
        settle(*ends6)
    (entry,) = (item for item in _neighbours(other) if item.address == fresh[-1].ip)
    assert entry.state & rtnetlink.NUD_REACHABLE


def _local_route(kind: int, flags: int) -> Request:
    """Return the request that adds or removes the local route of `THERE`."""
    packed = IPv6Interface(THERE).packed
    body = rtnetlink.ROUTE.pack(socket.AF_INET6, 128, 0, 0, 255, 2, 0, 2, 0) + attr(
        rtnetlink.RTA_DST, packed
    )
    return Request(kind, flags, body + u32(rtnetlink.RTA_OIF, PORT), "change a local route")


def test_address_without_local_route_is_named(ends6: Pair) -> None:
    """The error of a wait names an address without a local route.

    The kernel discards packets to such an address.
    """
    _, other = ends6
    await_ready([other])
    with Netlink(other) as netlink:
        netlink.send([_local_route(rtnetlink.RTM_DELROUTE, 0)])
        with pytest.raises(NeverReady, match=r"address .* of eth0 accepts no packets yet after"):
            await_ready([other], bound=0.05)


def test_address_is_awaited_until_its_local_route_exists(
    ends6: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address is awaited until the kernel adds its local route.

    The kernel announces an address before it adds the local route.
    """
    _, other = ends6
    await_ready([other])
    woken: list[bool] = []

    def waited(*given: Any) -> tuple[list[Any], ...]:
        netlink.send([_local_route(rtnetlink.RTM_NEWROUTE, NLM_F_CREATE)])
        found = wait(*given)
        woken.append(bool(found[0]))
        return found

    wait = select.select
    monkeypatch.setattr(select, "select", waited)
    with Netlink(other) as netlink:
        netlink.send([_local_route(rtnetlink.RTM_DELROUTE, 0)])
        await_ready([other])
    assert woken == [True]


def _neighbours(space: NetNS) -> list[rtnetlink_dump.Neighbour]:
    with Netlink(space) as netlink:
        return list(rtnetlink_dump.neighbours(netlink))


def test_address_that_stays_tentative_is_named(bare: Pair) -> None:
    """The error for an address that stays tentative names address, link and namespace."""
    one, _ = bare
    netns.write_sysctls(one, {"net.ipv6.conf.eth0.dad_transmits": 1000})
    give(one, OWN)
    with pytest.raises(NeverReady) as caught:
        await_ready(bare, bound=0.05)
    assert str(caught.value) == (
        f"address {OWN} of eth0 is still tentative after 0.05 s, in {one!r}"
    )


def test_duplicate_address_is_not_awaited(bare: Pair) -> None:
    """A duplicate address is not awaited, because it never becomes usable."""
    one, other = bare
    with Netlink(other) as netlink:
        netlink.send([rtnetlink.add_address(PORT, IPv6Interface(OWN))])
    await_ready(bare)
    give(one, OWN)
    await_ready(bare)
    assert address_state(one, OWN)[1]


def test_address_on_a_link_without_carrier_is_not_awaited() -> None:
    """An address on a link without a carrier is not awaited.

    A bridge without ports detects no duplicates, so the address stays tentative.
    """
    with control() as space, Netlink(space) as netlink:
        netlink.send(
            [
                rtnetlink.add_bridge("br0", index=5),
                rtnetlink.add_veth("port", "peer", index=6, master=5),
                rtnetlink.del_link("port"),
            ]
        )
        give(space, OWN, index=5)
        await_ready([space], bound=0.0)
        assert address_state(space, OWN) == (True, False)


def test_link_local_address_alone_is_not_awaited(bare: Pair) -> None:
    """A link-local address is not awaited on a link without a global IPv6 address."""
    one, _ = bare
    netns.write_sysctls(one, {"net.ipv6.conf.eth0.dad_transmits": 1000})
    with Netlink(one) as netlink:
        netlink.send([rtnetlink.set_link(PORT, up=False), rtnetlink.set_link(PORT, up=True)])
    await_ready([one])
    with Netlink(one) as netlink:
        assert [item.tentative for item in rtnetlink_dump.addresses(netlink, index=PORT)] == [True]


def test_bridge_port_that_does_not_forward_is_named() -> None:
    """The error of a wait names a bridge port that does not forward.

    A bridge with a spanning tree lets its ports listen and learn for seconds first.
    """
    slow = u32(rtnetlink.IFLA_BR_STP_STATE, 1) + u32(rtnetlink.IFLA_BR_FORWARD_DELAY, 200)
    with pair([], []) as (one, _), Netlink(one) as netlink:
        netlink.send(
            [
                rtnetlink.add_link("bridge", "br0", index=5, data=slow, up=True),
                rtnetlink.set_link(PORT, master=5),
            ]
        )
        with pytest.raises(NeverReady, match=r"bridge port eth0 does not forward yet \(state 1\)"):
            await_ready([one], bound=0.05)
        netlink.send([rtnetlink.set_link(5, up=False)])
        await_ready([one])


def test_link_with_carrier_is_awaited_until_running() -> None:
    """Every link with a carrier is also running after the wait."""
    for _ in range(20):
        with NetNS.new() as one, NetNS.new() as other:
            with Netlink(one) as netlink:
                netlink.send([rtnetlink.add_bridge("br0", index=5)])
                netlink.send([rtnetlink.add_veth("near", "far", master=5, peer_netns=other.fd)])
            with Netlink(other) as netlink:
                index = rtnetlink_dump.link(netlink, "far").ifindex
                netlink.send([rtnetlink.set_link(index, up=True)])
            await_ready([other, one])
            for space in (one, other):
                with Netlink(space) as netlink:
                    found = [
                        link for link in rtnetlink_dump.links(netlink) if link.up and link.carrier
                    ]
                    assert all(link.running for link in found)
                    assert [link.port_state for link in found if link.master] in ([], [3])
