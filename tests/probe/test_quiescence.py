"""Silence is called final when nothing moves any more, and not before."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv6Interface
from typing import Any

import pytest

from harness.probe import quiescence
from harness.probe.quiescence import ControlLost, NeverQuiet, Quiet
from linux import netns, nftables, rtnetlink, rtnetlink_dump
from linux.netlink import NLM_F_CREATE, Netlink, Request, attr, u32
from linux.netns import NetNS
from linux.readiness import NeverReady, await_ready
from tests.support.asking import control
from tests.support.asking import settle as settle_down
from tests.world.pair import PORT, pair

PASSES = 1000
"""Passes after which a world without traffic must be quiet."""
Pair = tuple[NetNS, NetNS]


@pytest.fixture
def ends() -> Iterator[Pair]:
    """Two namespaces and a cable, IPv4 only: nobody sends unasked."""
    with pair(["192.0.2.1/24"], ["192.0.2.2/24"]) as both:
        for space in both:
            netns.write_sysctls(space, {"net.ipv6.conf.all.disable_ipv6": 1})
        yield both


@pytest.fixture
def lo() -> Iterator[NetNS]:
    """Create a netns for control packets."""
    with control() as space:
        yield space


def rest(quiet: Quiet) -> None:
    """Make passes until the world is quiet."""
    assert any(quiet.reached() for _ in range(PASSES)), "no pass was quiet"


# --- quiet --------------------------------------------------------------------------


def test_first_pass_is_never_quiet(ends: Pair, lo: NetNS) -> None:
    """A first pass has no earlier counters to compare with."""
    with Quiet(lo, ends) as quiet:
        rest(quiet)
    with Quiet(lo, ends) as quiet:
        assert [quiet.reached(), quiet.reached()] == [False, True]


def test_proxied_requests_are_dumped_once_without_traffic(
    ends: Pair, lo: NetNS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dump takes the RTNL lock, which may be busy for tens of milliseconds."""
    asked: list[Netlink] = []

    def requests(netlink: Netlink) -> set[int]:
        asked.append(netlink)
        return set()

    monkeypatch.setattr(rtnetlink_dump, "proxied_requests", requests)
    with Quiet(lo, ends) as quiet:
        quiet.last()
        assert len(asked) == 1


def test_packet_between_two_passes_is_not_quiet(ends: Pair, lo: NetNS) -> None:
    """One packet in either direction since the last pass means traffic."""
    one, other = ends
    with Quiet(lo, ends) as quiet:
        for sender, address in ((one, "192.0.2.2"), (other, "192.0.2.1")):
            with sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                rest(quiet)
                sock.sendto(b"!", (address, 9))
                assert not quiet.reached()
                rest(quiet)


def test_traffic_on_loopback_and_elsewhere_does_not_count(ends: Pair, lo: NetNS) -> None:
    """Packets over `lo` and in unwatched namespaces are no traffic."""
    one, other = ends
    with Quiet(lo, [one]) as quiet, pair(["192.0.2.1/24"], ["192.0.2.2/24"]) as (far, _):
        rest(quiet)
        for space, address in ((one, "127.0.0.1"), (other, "127.0.0.1"), (far, "192.0.2.2")):
            with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"!", (address, 9))
        assert quiet.reached()


@pytest.fixture
def storm() -> Iterator[NetNS]:
    """Two bridges joined by two cables, and one frame that goes round and round between them."""
    with NetNS.new() as space, Netlink(space) as netlink:
        netns.write_sysctls(space, {"net.ipv6.conf.default.disable_ipv6": 1})
        netlink.send([rtnetlink.add_bridge("west", index=5), rtnetlink.add_bridge("east", index=6)])
        for cable in (0, 1):
            ends = 10 + cable, 20 + cable
            netlink.send(
                [
                    rtnetlink.add_veth(
                        f"w{cable}", f"e{cable}", index=ends[0], peer_index=ends[1], master=5
                    ),
                    rtnetlink.set_link(ends[1], master=6, up=True),
                ]
            )
        await_ready([space])
        with space.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind(("west", 0))
            sock.send(b"\xff" * 6 + bytes.fromhex("020000000001") + b"\x88\xb5".ljust(48, b"."))
        yield space
        netlink.send([rtnetlink.set_link(5, up=False), rtnetlink.set_link(6, up=False)])


def test_endless_traffic_is_an_error_that_names_busy_links(
    storm: NetNS, ends: Pair, lo: NetNS
) -> None:
    """While a frame goes round no pass is quiet; at last the error names links that are busy."""
    with Quiet(lo, ends) as quiet:
        rest(quiet)
    with Quiet(lo, [*ends, storm], bound=0.05) as quiet:
        with pytest.raises(NeverQuiet) as caught:
            rest(quiet)
        told = str(caught.value)
        assert told.startswith("the world is still busy after 0.05 s, at ")
        assert f"{storm!r}" in told
        assert any(f"{name} in" in told for name in ("e0", "e1", "w0", "w1"))
        assert "eth0" not in told
    with Netlink(storm) as netlink:
        netlink.send([rtnetlink.set_link(5, up=False)])
    with Quiet(lo, [storm]) as quiet:
        rest(quiet)


def test_quiet_at_the_end_of_the_bound_is_no_error(ends: Pair, lo: NetNS) -> None:
    """A world that is at rest when time is up is quiet all the same."""
    with Quiet(lo, ends) as quiet:
        rest(quiet)
    with Quiet(lo, ends, bound=0.0) as quiet:
        assert [quiet.reached(), quiet.reached()] == [False, True]


def test_lost_control_packet_is_an_error(
    ends: Pair, lo: NetNS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no verdict if not even `lo` delivers."""
    monkeypatch.setattr(quiescence, "CONTROL_BOUND", 0.02)
    table = nftables.Table("inet", "swallow")
    with nftables.Nft(lo) as rules:
        chain = nftables.add_chain(table, "in", hook="input", policy="drop")
        rules.apply([nftables.add_table(table), chain])
    with (
        Quiet(lo, ends) as quiet,
        pytest.raises(ControlLost, match=r"took more than 0\.02 s; .* run again with fewer"),
    ):
        quiet.reached()


def test_quiet_lasts_for_the_patience_after_the_last_packet(
    ends: Pair, lo: NetNS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packet during the wait restarts the time."""
    passes: list[float] = []

    def reached() -> bool:
        passes.append(time.monotonic())
        if len(passes) == 2:
            sender.sendto(b"!", ("192.0.2.2", 9))
        return look()

    with Quiet(lo, ends) as quiet, ends[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        look = quiet.reached
        monkeypatch.setattr(quiet, "reached", reached)
        quiet.outlast(0.2, ends[0])
    assert passes[-1] - passes[1] >= 0.2
    assert len(passes) >= 4  # the third is the packet's


def test_quiescence_pass_restores_cpu_affinity(ends: Pair, lo: NetNS) -> None:
    """A pass visits every processor, and the caller may use the same ones as before."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        every = os.sched_getaffinity(0)
        with Quiet(lo, ends) as quiet:
            quiet.reached()
        assert os.sched_getaffinity(0) == every
    finally:
        os.sched_setaffinity(0, before)


# --- ready --------------------------------------------------------------------------

OWN, PEER, THERE = "fd00::1/64", "fd00::2/64", "fd00::ffff/64"


@pytest.fixture
def bare() -> Iterator[Pair]:
    """Two namespaces and a cable, on which duplicate address detection takes a tenth second."""
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
    """Two namespaces and a cable, with an IPv6 address at one end."""
    with pair([], [THERE]) as both:
        yield both


def give(space: NetNS, text: str, index: int = PORT) -> None:
    """Give a link an address that is looked for duplicates of."""
    with Netlink(space) as netlink:
        netlink.send([rtnetlink.add_address(index, IPv6Interface(text), nodad=False)])


def state(space: NetNS, text: str) -> tuple[bool, bool]:
    """Whether an address is tentative, and whether it failed."""
    with Netlink(space) as netlink:
        (found,) = (a for a in rtnetlink_dump.addresses(netlink) if str(a.address) == text)
    return found.tentative, found.failed


def test_tentative_address_is_awaited_without_polling(
    bare: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait ends on a notification of the kernel, without polling."""
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
        )  # else it may be over by then
        give(space, text)
        assert state(space, text) == (True, False)
    await_ready(bare)
    assert woken
    assert all(woken)
    assert state(one, OWN) == state(other, PEER) == (False, False)


def test_address_without_duplicate_detection_is_awaited_until_reachable(ends6: Pair) -> None:
    """Neighbours reach an address without duplicate address detection after a short delay."""
    one, other = ends6
    fresh = [IPv6Interface(f"fd00::{number:x}/64") for number in range(1, 100)]
    with Netlink(one) as netlink, other.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asker:
        netlink.send([rtnetlink.add_address(PORT, address) for address in fresh])
        await_ready([one])
        assert rtnetlink_dump.local_addresses(netlink) >= {address.ip for address in fresh}
        asker.sendto(b"!", (str(fresh[-1].ip), 9))
        settle_down(*ends6)
    (entry,) = (item for item in _neighbours(other) if item.address == fresh[-1].ip)
    assert entry.state & rtnetlink.NUD_REACHABLE


def _local_route(kind: int, flags: int) -> Request:
    """To add or to remove the route by which `THERE` is taken in."""
    packed = IPv6Interface(THERE).packed
    body = rtnetlink.ROUTE.pack(socket.AF_INET6, 128, 0, 0, 255, 2, 0, 2, 0) + attr(
        rtnetlink.RTA_DST, packed
    )
    return Request(kind, flags, body + u32(rtnetlink.RTA_OIF, PORT), "change a local route")


def test_address_without_local_route_is_named(ends6: Pair) -> None:
    """The kernel discards packets to an address without a local route."""
    _, other = ends6
    await_ready([other])
    with Netlink(other) as netlink:
        netlink.send([_local_route(rtnetlink.RTM_DELROUTE, 0)])
        with pytest.raises(NeverReady, match=r"address .* of eth0 takes no packets yet after"):
            await_ready([other], bound=0.05)


def test_address_is_awaited_until_it_has_a_local_route(
    ends6: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel announces an address before it adds the local route."""
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
    """The error names the address, the link and the namespace."""
    one, _ = bare
    netns.write_sysctls(one, {"net.ipv6.conf.eth0.dad_transmits": 1000})
    give(one, OWN)
    with pytest.raises(NeverReady) as caught:
        await_ready(bare, bound=0.05)
    assert str(caught.value) == (
        f"address {OWN} of eth0 is still tentative after 0.05 s, in {one!r}"
    )


def test_duplicate_address_is_not_awaited(bare: Pair) -> None:
    """A duplicate address never becomes usable: there is nothing to wait for."""
    one, other = bare
    with Netlink(other) as netlink:
        netlink.send([rtnetlink.add_address(PORT, IPv6Interface(OWN))])
    await_ready(bare)
    give(one, OWN)
    await_ready(bare)
    assert state(one, OWN)[1]


def test_address_on_a_link_without_carrier_is_not_awaited() -> None:
    """On a bridge without ports no duplicates are looked for, so the address stays tentative."""
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
        assert state(space, OWN) == (True, False)


def test_link_local_address_alone_is_not_awaited(bare: Pair) -> None:
    """A link without a global IPv6 address takes no part in IPv6."""
    one, _ = bare
    netns.write_sysctls(one, {"net.ipv6.conf.eth0.dad_transmits": 1000})
    with Netlink(one) as netlink:
        netlink.send([rtnetlink.set_link(PORT, up=False), rtnetlink.set_link(PORT, up=True)])
    await_ready([one])
    with Netlink(one) as netlink:
        assert [item.tentative for item in rtnetlink_dump.addresses(netlink, index=PORT)] == [True]


def test_bridge_port_that_does_not_forward_is_named() -> None:
    """A bridge with a spanning tree lets its ports listen and learn for seconds first."""
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
