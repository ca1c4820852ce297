"""Bridge ports and raw Ethernet frames: isolation and hairpin."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from linux import netns, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from tests.support.probing import settle

BROADCAST = "ff:ff:ff:ff:ff:ff"
KIND = 0x88B5
"""Ethernet's local experimental type: nothing answers it, nothing else sends it."""
COUNT = 3
BRIDGE, PORT = 5, 10
"""Indexes of the bridge and of its first port."""


def mac(number: int) -> str:
    """Return the MAC of a host."""
    return f"02:00:00:00:00:{number:02x}"


class Segment:
    """A bridge in one namespace, whose ports lead to one host each."""

    def __init__(self, stack: ExitStack, bridge: NetNS) -> None:
        self.hosts = [stack.enter_context(NetNS.new()) for _ in range(COUNT)]
        self.netlink = stack.enter_context(Netlink(bridge))
        self._everybody = (bridge, *self.hosts)
        self.netlink.send([rtnetlink.add_bridge("br0", index=BRIDGE)])
        self._listeners = []
        for number, host in enumerate(self.hosts):
            pair = rtnetlink.add_veth(
                f"port{number}",
                "eth0",
                index=PORT + number,
                master=BRIDGE,
                peer_netns=host.fd,
                peer_index=2,
                peer_mac=mac(number),
            )
            self.netlink.send([pair])
            netns.write_sysctls(host, {"net.ipv6.conf.eth0.disable_ipv6": 1})
            with Netlink(host) as netlink:
                netlink.send([rtnetlink.set_link(2, up=True)])
                assert rtnetlink_dump.link(netlink, "eth0").running
            assert rtnetlink_dump.link(self.netlink, f"port{number}").port_state == 3
            listener = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(KIND))
            self._listeners.append(stack.enter_context(listener))
            listener.bind(("eth0", KIND))
            listener.setblocking(False)

    def reached(self, sender: int, to: str) -> set[int]:
        """Send a frame from a host, and return the hosts at which it arrived."""
        frame = bytes.fromhex(to.replace(":", "")) + rtnetlink.mac_bytes(mac(sender))
        self._listeners[sender].send(frame + KIND.to_bytes(2, "big") + b"hello".ljust(46, b"."))
        settle(*self._everybody)
        found = set()
        for number, listener in enumerate(self._listeners):
            try:
                assert listener.recv(2000)[14:19] == b"hello"
                found.add(number)
            except BlockingIOError:
                continue
        return found


@pytest.fixture
def segment(space: NetNS) -> Iterator[Segment]:
    """Three hosts on one bridge."""
    with ExitStack() as stack:
        yield Segment(stack, space)


def test_isolated_ports_exchange_no_frame(segment: Segment) -> None:
    """An isolated port reaches only ports that are not: broadcast, known and unknown unicast."""
    assert segment.reached(0, BROADCAST) == {1, 2}
    for number in (0, 1):
        segment.netlink.send([rtnetlink.isolate_port(PORT + number)])
    assert segment.reached(0, BROADCAST) == segment.reached(0, mac(1)) == {2}
    assert segment.reached(1, mac(0)) == segment.reached(0, mac(1)) == set()
    assert segment.reached(0, mac(2)) == {2}
    assert segment.reached(2, BROADCAST) == {0, 1}
    assert segment.reached(2, mac(0)) == {0}
    segment.netlink.send([rtnetlink.isolate_port(PORT, isolated=False)])
    assert segment.reached(0, BROADCAST) == {1, 2}
    assert segment.reached(1, mac(0)) == {0}


def test_hairpin_port_returns_frames_to_their_own_port(segment: Segment) -> None:
    """A broadcast returns through its own port if that is a hairpin, and only then."""
    assert segment.reached(0, BROADCAST) == {1, 2}
    segment.netlink.send([rtnetlink.hairpin_port(PORT)])
    assert segment.reached(0, BROADCAST) == {0, 1, 2}
    assert segment.reached(1, BROADCAST) == {0, 2}
    segment.netlink.send([rtnetlink.hairpin_port(PORT, on=False)])
    assert segment.reached(0, BROADCAST) == {1, 2}


def test_released_port_neither_sends_nor_receives(segment: Segment) -> None:
    """A link without a master has left the segment."""
    segment.netlink.send([rtnetlink.set_link(PORT, master=0)])
    assert segment.reached(0, BROADCAST) == set()
    assert segment.reached(1, BROADCAST) == {2}


def test_no_link_local_keeps_a_link_without_ipv6_address(space: NetNS) -> None:
    """A link that comes up after `no_link_local` has no address; any other gets one."""
    with Netlink(space) as netlink:
        netlink.send(
            [
                rtnetlink.add_veth("with", "without", index=20, peer_index=21, up=False),
                rtnetlink.no_link_local("without"),
                rtnetlink.set_link(20, up=True),
                rtnetlink.set_link(21, up=True),
            ]
        )
        for name in ("with", "without"):
            assert rtnetlink_dump.link(netlink, name).running
        assert [item.address.is_link_local for item in rtnetlink_dump.addresses(netlink, index=20)]
        assert rtnetlink_dump.addresses(netlink, index=21) == []
