"""Tests of the wait until no packet is in transit.

A missing reply is final only after this wait.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from harness.probe import quiescence
from harness.probe.quiescence import ControlLost, NeverQuiet, Quiet
from linux import netns, nftables, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.readiness import await_ready
from tests.support.nft import add_rule
from tests.support.probing import control
from tests.world.pair import pair

PASSES = 1000
"""Maximum number of passes until a world without traffic is quiet."""
Pair = tuple[NetNS, NetNS]


@pytest.fixture
def ends() -> Iterator[Pair]:
    """Connect two namespaces by IPv4 only, because the kernel sends IPv6 packets by itself."""
    with pair(["192.0.2.1/24"], ["192.0.2.2/24"]) as both:
        for space in both:
            netns.write_sysctls(space, {"net.ipv6.conf.all.disable_ipv6": 1})
        yield both


@pytest.fixture
def lo() -> Iterator[NetNS]:
    """Create a netns for control packets, whose `lo` is up."""
    with control() as space:
        yield space


def pass_until_quiet(quiet: Quiet) -> None:
    """Make passes over the namespaces until one finds them quiet."""
    assert any(quiet.reached() for _ in range(PASSES)), "no pass was quiet"


def test_proxied_requests_are_dumped_once_without_traffic(
    ends: Pair, lo: NetNS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If there is no traffic, requests to neighbour proxies are dumped only once.

    The dump takes the RTNL lock, which may be busy for tens of milliseconds.
    """
    dumps: list[Netlink] = []

    def requests(netlink: Netlink) -> set[int]:
        dumps.append(netlink)
        return set()

    monkeypatch.setattr(rtnetlink_dump, "proxied_requests", requests)
    with Quiet(lo, ends) as quiet:
        quiet.wait()
        assert len(dumps) == 1


def test_packet_between_two_control_packet_rounds_counts_as_traffic(ends: Pair, lo: NetNS) -> None:
    """A packet in either direction between two control-packet rounds counts as traffic."""
    one, other = ends
    with Quiet(lo, ends) as quiet:
        for sender, address in ((one, "192.0.2.2"), (other, "192.0.2.1")):
            with sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                pass_until_quiet(quiet)
                sock.sendto(b"!", (address, 9))
                assert not quiet.reached()
                pass_until_quiet(quiet)


def test_traffic_on_loopback_and_elsewhere_does_not_count(ends: Pair, lo: NetNS) -> None:
    """Packets over `lo` and in unwatched namespaces are no traffic."""
    one, other = ends
    with Quiet(lo, [one]) as quiet, pair(["192.0.2.1/24"], ["192.0.2.2/24"]) as (far, _):
        pass_until_quiet(quiet)
        for space, address in ((one, "127.0.0.1"), (other, "127.0.0.1"), (far, "192.0.2.2")):
            with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"!", (address, 9))
        assert quiet.reached()


@pytest.fixture
def storm() -> Iterator[NetNS]:
    """Make two bridges joined by two veth pairs, with one frame that loops between them."""
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
    """If traffic never ends, such as a frame in a loop, the error names the busy links."""
    with Quiet(lo, ends) as quiet:
        pass_until_quiet(quiet)
    with Quiet(lo, [*ends, storm], bound=0.05) as quiet:
        with pytest.raises(NeverQuiet) as caught:
            pass_until_quiet(quiet)
        message = str(caught.value)
        assert message.startswith("the world is still busy after 0.05 s, at ")
        assert f"{storm!r}" in message
        assert any(f"{name} in" in message for name in ("e0", "e1", "w0", "w1"))
        assert "eth0" not in message
    with Netlink(storm) as netlink:
        netlink.send([rtnetlink.set_link(5, up=False)])
    with Quiet(lo, [storm]) as quiet:
        pass_until_quiet(quiet)


def test_world_that_is_quiet_at_the_end_of_the_bound_is_no_error(ends: Pair, lo: NetNS) -> None:
    """A world that is quiet only at the end of the time limit raises no error."""
    with Quiet(lo, ends) as quiet:
        pass_until_quiet(quiet)
    with Quiet(lo, ends, bound=0.0) as quiet:
        assert [quiet.reached(), quiet.reached()] == [False, True]


def test_lost_control_packet_is_an_error(
    ends: Pair, lo: NetNS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a control packet is lost on `lo`, an error is raised and no verdict is returned."""
    monkeypatch.setattr(quiescence, "CONTROL_BOUND", 0.02)
    add_rule(lo, "input", nftables.verdict("drop"))
    with (
        Quiet(lo, ends) as quiet,
        pytest.raises(ControlLost, match=r"took more than 0\.02 s; .* run with fewer"),
    ):
        quiet.reached()


def test_packet_restarts_the_wait_for_user_space(
    ends: Pair, lo: NetNS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patience is the time without packets that the prober waits for user space.

    A packet during this wait restarts the time.
    """
    passes: list[float] = []

    def reached() -> bool:
        passes.append(time.monotonic())
        if len(passes) == 2:
            sender.sendto(b"!", ("192.0.2.2", 9))
        return look()

    with Quiet(lo, ends) as quiet, ends[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        look = quiet.reached
        monkeypatch.setattr(quiet, "reached", reached)
        quiet.wait_for_user_space(0.2, ends[0])
    assert passes[-1] - passes[1] >= 0.2
    assert len(passes) >= 4  # the packet costs the third pass


def test_quiescence_pass_restores_cpu_affinity(ends: Pair, lo: NetNS) -> None:
    """A pass runs on every processor, and then restores the caller's CPU affinity."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        every = os.sched_getaffinity(0)
        with Quiet(lo, ends) as quiet:
            quiet.reached()
        assert os.sched_getaffinity(0) == every
    finally:
        os.sched_setaffinity(0, before)
