"""Tests of ICMP messages, which are compared with scapy's, and of arbitrary bytes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
)
from scapy.packet import Packet, Raw

from harness.model.plan import FAMILIES, Family
from harness.probe import icmp

NUMBERS = st.integers(0, 0xFFFF)
SOURCE, TARGET = "192.0.2.1", "192.0.2.2"
SOURCE6, TARGET6 = "2001:db8::1", "2001:db8::2"


@given(identifier=NUMBERS, sequence=NUMBERS, payload=st.binary(max_size=70))
def test_icmp_echo_request_equals_that_of_scapy(
    identifier: int, sequence: int, payload: bytes
) -> None:
    """An ICMP echo request and its checksum are equal to scapy's.

    The payload has an even or an odd length.
    """
    expected = bytes(ICMP(id=identifier, seq=sequence) / Raw(payload))
    assert icmp.echo_request(4, identifier, sequence, payload) == expected
    assert icmp.checksum(expected) == 0


@given(identifier=NUMBERS, sequence=NUMBERS, payload=st.binary(max_size=70))
def test_icmpv6_echo_request_has_no_checksum(
    identifier: int, sequence: int, payload: bytes
) -> None:
    """An ICMPv6 echo request equals scapy's, apart from the checksum.

    The kernel computes the checksum, which depends on the addresses.
    """
    packet = IPv6(src=SOURCE6, dst=TARGET6) / ICMPv6EchoRequest(id=identifier, seq=sequence)
    expected = bytearray(bytes(packet / Raw(payload))[40:])
    expected[2:4] = bytes(2)
    assert icmp.echo_request(6, identifier, sequence, payload) == expected


@given(
    identifier=NUMBERS,
    sequence=NUMBERS,
    payload=st.binary(max_size=40),
    ttl=st.integers(1, 255),
    options=st.integers(0, 10),
)
def test_icmp_parser_reads_echo_reply_of_scapy(
    identifier: int, sequence: int, payload: bytes, ttl: int, options: int
) -> None:
    """The parser returns every field of an echo reply, even after IP options.

    The kernel delivers IPv6 messages without the IPv6 header.
    """
    header = IP(src=SOURCE, dst=TARGET, ttl=ttl, options=[IPOption_NOP()] * 4 * options)
    four = bytes(header / ICMP(type=0, id=identifier, seq=sequence) / Raw(payload))
    expected = icmp.Message(0, 0, identifier, sequence, payload, ttl)
    assert icmp.parse(4, four) == expected
    six = IPv6(src=SOURCE6, dst=TARGET6) / ICMPv6EchoReply(id=identifier, seq=sequence)
    expected = icmp.Message(129, 0, identifier, sequence, payload, None)
    assert icmp.parse(6, bytes(six / Raw(payload))[40:]) == expected


@given(identifier=NUMBERS, sequence=NUMBERS, options=st.integers(0, 10))
def test_quoted_echo_returns_identifier_and_sequence_of_the_request(
    identifier: int, sequence: int, options: int
) -> None:
    """The identifier and sequence number of a quoted echo request are found.

    The headers before it may have any length.
    """
    header = IP(src=SOURCE, dst=TARGET, options=[IPOption_NOP()] * 4 * options)
    quoted = header / ICMP(id=identifier, seq=sequence)
    error = IP(src=TARGET, dst=SOURCE) / ICMP(type=3, code=13) / Raw(bytes(quoted))
    message = icmp.parse(4, bytes(error))
    assert message is not None
    assert (message.kind, message.code) == (3, 13)
    assert icmp.quoted_echo(4, message.payload) == (identifier, sequence)
    quoted6 = IPv6(src=SOURCE6, dst=TARGET6) / ICMPv6EchoRequest(id=identifier, seq=sequence)
    for kind in (ICMPv6DestUnreach(code=1), ICMPv6PacketTooBig(mtu=1280)):
        message = icmp.parse(6, bytes(IPv6(src=TARGET6, dst=SOURCE6) / kind / quoted6)[40:])
        assert message is not None
        assert icmp.quoted_echo(6, message.payload) == (identifier, sequence)


OTHERS = [
    (4, IP(src=SOURCE, dst=TARGET) / UDP(sport=8 << 8, dport=7)),
    (4, IP(src=SOURCE, dst=TARGET) / ICMP(type=0, id=1, seq=2)),
    (6, IPv6(src=SOURCE6, dst=TARGET6) / UDP(sport=128 << 8, dport=7)),
    (6, IPv6(src=SOURCE6, dst=TARGET6) / ICMPv6EchoReply(id=1, seq=2)),
]


@pytest.mark.parametrize(("family", "quoted"), OTHERS)
def test_quoted_echo_is_none_for_another_packet(family: Family, quoted: Packet) -> None:
    """For an ICMP error about a datagram or an echo reply, `quoted_echo` returns `None`."""
    assert icmp.quoted_echo(family, bytes(quoted)) is None


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.binary(max_size=90))
@example(data=bytes(8))
@example(data=b"")
def test_icmp_parser_survives_arbitrary_bytes(family: Family, data: bytes) -> None:
    """Any bytes parse to a message or `None`, and raise no error."""
    icmp.parse(family, data)
    icmp.quoted_echo(family, data)


def test_icmp_errors_have_the_same_name_in_both_families() -> None:
    """ICMP errors with the same meaning have the same name in both families.

    An error without a name is named by its type and code.
    """
    same = {
        "net-unreachable": ((3, 0), (1, 0)),
        "host-unreachable": ((3, 1), (1, 3)),
        "port-unreachable": ((3, 3), (1, 4)),
        "admin-prohibited": ((3, 13), (1, 1)),
        "packet-too-big": ((3, 4), (2, 0)),
        "ttl-exceeded": ((11, 0), (3, 0)),
    }
    for name, (four, six) in same.items():
        assert icmp.name(4, *four) == icmp.name(6, *six) == name
    assert icmp.name(4, 3, 99) == "icmp-3-99"
