"""Tests of probes to a macvlan, whose parent may still have queued frames.

A missing reply is final only when no frame is queued.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_interface
from typing import NamedTuple

import pytest

from harness.model.plan import PROTOCOLS, Observation, Outcome, Protocol
from harness.probe import prober
from harness.probe.quiescence import Quiet
from linux import rtnetlink
from linux.netlink import Netlink, u32
from linux.netns import NetNS, write_sysctls
from linux.readiness import await_ready
from tests.support.probing import control, observe_all, probe
from tests.world.pair import PORT, pair

INSIDE, NOBODY = "192.0.2.3", "192.0.2.99"
CROWD = 60
BURST = 900
"""Number of frames that are queued together; the kernel queues a thousand for a parent."""
GROUP = bytes.fromhex("01005e000123")
"""Multicast MAC that only the many listeners have joined, so no target receives its frames."""
_BRIDGE_MODE = u32(rtnetlink.IFLA_MACVLAN_MODE, 4)
_ADD_MEMBERSHIP = 1


class Lan(NamedTuple):
    """A sender, and a veth end with macvlan links: a target and many listeners."""

    sender: NetNS
    parent: NetNS
    inside: NetNS

    def burst(self) -> None:
        """Send frames to the many listeners, which keep the parent link busy for milliseconds."""
        with self.sender.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for _ in range(BURST):
                raw.send(GROUP + bytes.fromhex("020000000002") + b"\x88\xb6".ljust(48, b"."))


def add_macvlan(parent: NetNS, child: NetNS, index: int, name: str) -> None:
    """Add a macvlan link to an end of the veth pair, in another netns, and set the link up."""
    made = rtnetlink.add_link(
        "macvlan", name, parent=PORT, netns=child.fd, index=index, data=_BRIDGE_MODE
    )
    with Netlink(parent) as outside, Netlink(child) as within:
        outside.send([made])
        within.send([rtnetlink.set_link(index, up=True)])


@pytest.fixture
def lan() -> Iterator[Lan]:
    """Make the sender, the parent link and all macvlan links, and wait until they are ready."""
    with ExitStack() as stack:
        inside, crowd = (stack.enter_context(NetNS.new()) for _ in range(2))
        sender, parent = stack.enter_context(pair(["192.0.2.1/24"], []))
        for space in (sender, parent, inside, crowd):
            write_sysctls(
                space, {"net.ipv6.conf.all.disable_ipv6": 1}
            )  # else the kernel sends packets by itself
        add_macvlan(parent, inside, 8, "eth0")
        with Netlink(inside) as netlink:
            netlink.send([rtnetlink.add_address(8, ip_interface(f"{INSIDE}/24"))])
        listener = stack.enter_context(crowd.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        for number in range(CROWD):
            add_macvlan(parent, crowd, 10 + number, f"mv{number}")
            joined = struct.pack("=iHH8s", 10 + number, 0, len(GROUP), GROUP)
            listener.setsockopt(263, _ADD_MEMBERSHIP, joined)  # SOL_PACKET
        await_ready([sender, parent, inside])
        yield Lan(sender, parent, inside)


@pytest.fixture
def busy(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> Lan:
    """Return the LAN, with a burst of frames sent just before each probe."""
    send = prober._Exchange.send

    def after_burst(self: prober._Exchange) -> None:
        lan.burst()
        send(self)

    monkeypatch.setattr(prober._Exchange, "send", after_burst)
    return lan


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_prober_waits_for_arp_request_queued_in_macvlan(busy: Lan, protocol: Protocol) -> None:
    """The prober waits for a reply while the ARP request is in the macvlan parent's queue."""
    requests = [probe(busy.sender, INSIDE, busy.inside, protocol)]
    (seen,) = observe_all(requests, through=[busy.parent])
    assert seen.outcome is Outcome.REPLY


def test_unused_address_behind_macvlan_queue_is_dropped(busy: Lan) -> None:
    """A request to an unused address is dropped, once the macvlan parent's queue is empty."""
    requests = [probe(busy.sender, NOBODY, busy.inside, protocol) for protocol in PROTOCOLS]
    assert observe_all(requests, through=[busy.parent]) == [Observation(Outcome.DROPPED)] * 3


def test_control_packet_does_not_count_as_traffic(lan: Lan) -> None:
    """A LAN without traffic is quiet after two rounds of control packets, which do not count."""
    with control() as lo, Quiet(lo, [lan.sender, lan.parent, lan.inside]) as quiet:
        assert any(quiet.reached() for _ in range(1000))
        assert quiet.reached()
        lan.burst()
        assert not quiet.reached()
