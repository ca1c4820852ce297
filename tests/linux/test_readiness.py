"""Tests of waiting until links, addresses and bridge ports are ready."""

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
"""Number of repetitions, among which a link is ready late at least once."""


def add_veth(netlink: Netlink, *, far: bool) -> None:
    """Make a veth pair and set its near end up, and then its far end if `far` is true."""
    netlink.send([rtnetlink.add_veth("near", "far", index=NEAR, peer_index=FAR)])
    if far:
        netlink.send([rtnetlink.set_link(FAR, up=True)])


def test_await_carrier_returns_when_both_ends_run(space: NetNS) -> None:
    """`await_carrier` returns when both ends of a veth pair are running.

    A worker of the kernel reports the carrier some time after the second end is up.
    """
    with Netlink(space) as netlink:
        for _ in range(OFTEN):
            add_veth(netlink, far=True)
            await_carrier(netlink, ["near", "far"])
            assert {link.running for link in rtnetlink_dump.links(netlink)} == {True}
            netlink.send([rtnetlink.del_link("near")])


def test_await_carrier_names_a_link_with_peer_down(space: NetNS) -> None:
    """If the peer of a link is down, the error of `await_carrier` names the link.

    The message says to check that the peer is up.
    """
    with Netlink(space) as netlink:
        add_veth(netlink, far=False)
        with pytest.raises(TimeoutError, match=r"near has no carrier .* check that its peer is up"):
            await_carrier(netlink, ["near"], bound=0.05)


def test_await_local_returns_when_ipv6_is_received(space: NetNS) -> None:
    """`await_local` returns when packets to an IPv6 address are delivered.

    Before that, a socket can be bound to the address, but packets to it are dropped.
    """
    with Netlink(space) as netlink:
        netlink.send([rtnetlink.add_bridge("br0", index=NEAR)])
        for number in range(1, OFTEN):
            own = ip_interface(f"fd00::{number:x}/64")
            netlink.send([rtnetlink.add_address(NEAR, own)])
            await_local(netlink, [own.ip])
            assert rtnetlink_dump.route_to(netlink, own.ip).local


def test_await_local_names_a_missing_ipv6_address(space: NetNS) -> None:
    """If an IPv6 address is missing, the error of `await_local` names the address.

    IPv4 addresses are usable at once and are not checked.
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
    """Connect two namespaces in which duplicate address detection takes a tenth of a second."""
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
    """Connect two namespaces; only one of the two has an IPv6 address."""
    with pair([], [THERE]) as both:
        yield both


def give(space: NetNS, text: str, index: int = PORT) -> None:
    """Add an address with duplicate address detection to a link."""
    with Netlink(space) as netlink:
        netlink.send([rtnetlink.add_address(index, IPv6Interface(text), nodad=False)])


def address_state(space: NetNS, text: str) -> tuple[bool, bool]:
    """Return whether an address is tentative, and whether it is a duplicate."""
    with Netlink(space) as netlink:
        (found,) = (a for a in rtnetlink_dump.addresses(netlink) if str(a.address) == text)
    return found.tentative, found.failed


def test_wait_for_tentative_address_does_not_poll(
    bare: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for a tentative address ends by a kernel notification, without polling."""
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


def test_wait_ends_when_address_without_dad_is_reachable(ends6: Pair) -> None:
    """The wait for an address without duplicate address detection ends when it is reachable.

    Neighbours can reach the address only after a short delay.
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


def test_wait_names_an_address_without_local_route(ends6: Pair) -> None:
    """If an address has no local route, the error of the wait names the address.

    The kernel discards packets to such an address.
    """
    _, other = ends6
    await_ready([other])
    with Netlink(other) as netlink:
        netlink.send([_local_route(rtnetlink.RTM_DELROUTE, 0)])
        with pytest.raises(NeverReady, match=r"address .* of eth0 accepts no packets yet after"):
            await_ready([other], bound=0.05)


def test_wait_ends_when_the_local_route_exists(
    ends6: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for an address ends when the kernel has added its local route.

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


def test_wait_names_an_address_that_stays_tentative(bare: Pair) -> None:
    """If an address stays tentative, the error names the address, link and namespace."""
    one, _ = bare
    netns.write_sysctls(one, {"net.ipv6.conf.eth0.dad_transmits": 1000})
    give(one, OWN)
    with pytest.raises(NeverReady) as caught:
        await_ready(bare, bound=0.05)
    assert str(caught.value) == (
        f"address {OWN} of eth0 is still tentative after 0.05 s, in {one!r}"
    )


def test_wait_ignores_a_duplicate_address(bare: Pair) -> None:
    """The wait ignores a duplicate address, because it never becomes usable."""
    one, other = bare
    with Netlink(other) as netlink:
        netlink.send([rtnetlink.add_address(PORT, IPv6Interface(OWN))])
    await_ready(bare)
    give(one, OWN)
    await_ready(bare)
    assert address_state(one, OWN)[1]


def test_wait_ignores_addresses_on_a_link_without_carrier() -> None:
    """The wait ignores an address on a link without a carrier.

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


def test_wait_ignores_a_link_with_only_link_local_address(bare: Pair) -> None:
    """The wait ignores a link's link-local address if the link has no global IPv6 address."""
    one, _ = bare
    netns.write_sysctls(one, {"net.ipv6.conf.eth0.dad_transmits": 1000})
    with Netlink(one) as netlink:
        netlink.send([rtnetlink.set_link(PORT, up=False), rtnetlink.set_link(PORT, up=True)])
    await_ready([one])
    with Netlink(one) as netlink:
        assert [item.tentative for item in rtnetlink_dump.addresses(netlink, index=PORT)] == [True]


def test_wait_names_a_bridge_port_that_does_not_forward() -> None:
    """If a bridge port does not forward, the error of the wait names the port.

    With a spanning tree, a port listens and learns for seconds before it forwards.
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


def test_links_with_carrier_are_running_after_the_wait() -> None:
    """After the wait, every link with a carrier is also running."""
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
