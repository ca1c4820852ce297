"""Tests of crafted packets and packet templates of both families, and of multicast groups."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from harness.model.plan import FAMILIES, Family
from harness.testbench.packets import craft
from harness.testbench.packets.craft import EVERYBODY_MAC, mac_of, solicited_node
from harness.testbench.packets.expect import differences

ENDS: dict[int, dict[str, Any]] = {
    4: {"src": IPv4Address("192.0.2.1"), "dst": IPv4Address("192.0.2.2")},
    6: {"src": IPv6Address("2001:db8::1"), "dst": IPv6Address("2001:db8::2")},
}


def on_the_wire(packet: Packet) -> Packet:
    """Return the packet as a capture would contain it."""
    return Ether(bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet))


@pytest.mark.parametrize("family", FAMILIES)
def test_crafted_header_has_the_requested_fields(family: Family) -> None:
    """A crafted header has the requested addresses and TTL.

    A template leaves other fields open, and may have a network in place of an address.
    """
    packet = on_the_wire(craft.ip(family, **ENDS[family], ttl=7) / UDP(dport=9))
    head = packet.payload
    assert (head.src, head.dst) == tuple(map(str, ENDS[family].values()))
    assert (head.ttl if family == 4 else head.hlim) == 7
    assert not differences(craft.ip(family), packet)
    assert differences(craft.ip(family, ttl=8), packet)
    network: Any = ip_network(f"{ENDS[family]['src']}/{24 if family == 4 else 64}", strict=False)
    assert not differences(craft.ip(family, src=network), packet)
    assert differences(craft.ip(family, dst=ip_network("198.51.100.0/24")), packet)


@pytest.mark.parametrize(
    ("family", "name", "options", "same"),
    [
        (4, "port-unreachable", {}, ICMP(type=3, code=3)),
        (4, "ttl-exceeded", {}, ICMP(type=11, code=0)),
        (4, "packet-too-big", {"mtu": 1400}, ICMP(type=3, code=4, nexthopmtu=1400)),
        (6, "port-unreachable", {}, ICMPv6DestUnreach(code=4)),
        (6, "ttl-exceeded", {}, ICMPv6TimeExceeded(code=0)),
        (6, "packet-too-big", {"mtu": 1400}, ICMPv6PacketTooBig(mtu=1400)),
    ],
)
def test_icmp_error_has_the_type_of_its_name(
    family: Family, name: str, options: dict[str, int], same: Packet
) -> None:
    """An ICMP error has the type, code and MTU that belong to its name.

    The names are those of RFC 792, RFC 1191 and RFC 4443.
    """
    quoted = craft.ip(family, **ENDS[family]) / UDP(sport=1, dport=9) / b"quoted"
    packet = on_the_wire(craft.ip(family, **ENDS[family]) / same / bytes(quoted))
    wanted = craft.error(family, name, **options) / craft.ip(family, **ENDS[family]) / UDP(sport=1)
    assert not differences(wanted, packet)
    assert differences(craft.error(family, "admin-prohibited"), packet)


@pytest.mark.parametrize(
    ("family", "packet"),
    [(4, IP(flags="MF") / b"x"), (6, IPv6() / IPv6ExtHdrFragment(m=1, nh=59) / b"x")],
)
def test_fragment_template_matches_all_but_the_last_fragment(
    family: Family, packet: Packet
) -> None:
    """A fragment template matches neither the last fragment nor an unfragmented datagram."""
    assert not differences(craft.fragment(family), on_the_wire(packet))
    assert differences(craft.fragment(family), on_the_wire(craft.ip(family) / UDP()))


@pytest.mark.parametrize(
    ("group", "mac"),
    [
        ("224.0.0.1", "01:00:5e:00:00:01"),
        ("239.255.7.7", "01:00:5e:7f:07:07"),
        ("255.255.255.255", EVERYBODY_MAC),
        ("172.17.255.255", EVERYBODY_MAC),
        ("ff02::1", "33:33:00:00:00:01"),
        ("ff02::1:ff28:9c5a", "33:33:ff:28:9c:5a"),
    ],
)
def test_multicast_group_has_its_mac(group: str, mac: str) -> None:
    """A multicast group or broadcast address has the MAC in RFC 1112 or RFC 2464."""
    assert mac_of(ip_address(group)) == mac


def test_solicited_node_group_is_that_of_rfc_4291() -> None:
    """An address's solicited-node group is that of RFC 4291, section 2.7.1."""
    group = solicited_node(IPv6Address("4037::01:800:200e:8c6c"))
    assert group == IPv6Address("ff02::1:ff0e:8c6c")
