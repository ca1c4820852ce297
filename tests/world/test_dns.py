"""Tests of the world's DNS server, by query and reply messages."""

from __future__ import annotations

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.update
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.topology import Topology
from harness.world.dns import BIG, BIG_ADDRESSES, BIG_TEXT, UDP_LIMIT, DnsQuery, Zone

ZONE = Zone(Topology())


def ask(name: str, kind: str, *, udp: bool = True, edns: int = -1) -> dns.message.Message:
    """Return the zone's reply to a query."""
    query = dns.message.make_query(name, kind, use_edns=0 if edns >= 0 else -1, payload=edns)
    wire, asked = ZONE.answer(query.to_wire(), udp=udp)
    assert wire is not None
    assert asked == DnsQuery(name.lower().rstrip("."), kind)
    response = dns.message.from_wire(wire)
    assert query.is_response(response)
    return response


def data(response: dns.message.Message) -> list[str]:
    """Return the records of the answer section as sorted text; their order has no meaning."""
    return sorted(str(rdata) for rrset in response.answer for rdata in rrset)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("www.example.com", "A", ["203.0.113.10"]),
        ("www.example.com", "AAAA", ["2001:db8:1::10"]),
        ("WwW.eXample.COM", "A", ["203.0.113.10"]),
        ("www.example.com", "ANY", ["2001:db8:1::10", "203.0.113.10"]),
        ("dns.example.com", "A", ["203.0.113.53"]),
        ("ns1.example.com", "A", ["192.168.2.10"]),
        ("a.sentinel.example.com", "A", ["203.0.113.10"]),
        ("b.a.sentinel.example.com", "AAAA", ["2001:db8:1::10"]),
        ("example.com", "NS", ["dns.example.com."]),
        ("r2.example.com", "A", ["192.0.2.6", "192.0.2.9"]),
    ],
)
def test_reply_for_known_dns_name_is_authoritative(
    name: str, kind: str, expected: list[str]
) -> None:
    """The reply for a known name has its records and the AA bit.

    Upper and lower case in the name are equivalent.
    """
    response = ask(name, kind)
    assert (response.rcode(), data(response)) == (dns.rcode.NOERROR, expected)
    assert response.flags & dns.flags.AA
    assert response.flags & dns.flags.RA


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "apex"),
    [
        ("missing.example.com", "A", dns.rcode.NXDOMAIN, "example.com."),
        ("example.org", "A", dns.rcode.NXDOMAIN, "."),
        ("www.example.com", "MX", dns.rcode.NOERROR, "example.com."),
        ("a.sentinel.example.com", "MX", dns.rcode.NOERROR, "example.com."),
        ("com", "MX", dns.rcode.NOERROR, "."),
        ("113.0.203.in-addr.arpa", "MX", dns.rcode.NOERROR, "."),
    ],
)
def test_dns_reply_without_records_has_an_soa(
    name: str, kind: str, rcode: dns.rcode.Rcode, apex: str
) -> None:
    """A reply without records has an SOA in its authority section (RFC 2308).

    The status is NXDOMAIN for an unknown name. It is NOERROR if the name has other records or names
    below it.
    """
    response = ask(name, kind)
    (authority,) = response.authority
    assert (response.rcode(), response.answer) == (rcode, [])
    assert (str(authority.name), authority.rdtype) == (apex, dns.rdatatype.SOA)


@pytest.mark.parametrize("address", Topology().owners())
def test_reverse_and_forward_dns_records_match(address: object) -> None:
    """The name in an address's PTR record resolves to the address."""
    (name,) = data(ask(str(dns.reversename.from_address(str(address))), "PTR"))
    kind = "A" if ip_address(str(address)).version == 4 else "AAAA"
    assert str(address) in data(ask(name, kind))


@pytest.mark.parametrize("edns", [-1, 512, 4096, 65535])
@pytest.mark.parametrize("kind", ["TXT", "A"])
def test_large_dns_reply_is_truncated_over_udp(kind: str, edns: int) -> None:
    """A reply larger than the client's UDP size is truncated, for any size.

    The truncated reply has the TC bit and no records.
    """
    response = ask(BIG, kind, edns=edns)
    assert response.flags & dns.flags.TC
    assert not response.answer
    assert len(response.to_wire()) <= UDP_LIMIT


def test_large_dns_reply_is_complete_over_tcp() -> None:
    """A reply that is too large for UDP is complete over TCP."""
    text, addresses = ask(BIG, "TXT", udp=False), ask(BIG, "A", udp=False)
    assert not (text.flags | addresses.flags) & dns.flags.TC
    assert data(text) == [" ".join(f'"{part}"' for part in BIG_TEXT)]
    assert data(addresses) == [str(address) for address in BIG_ADDRESSES]


def test_dns_records_have_ttl_zero() -> None:
    """DNS records have TTL 0, so no reply is cached and the server receives every query."""
    for name in ("www.example.com", "missing.example.com"):
        response = ask(name, "A")
        assert {rrset.ttl for rrset in (*response.answer, *response.authority)} == {0}


@pytest.mark.parametrize("tail", [b"", b"\xff", b"\0\0\0\x01", b"\3www"])
def test_malformed_dns_query_gets_formerr(tail: bytes) -> None:
    """A query that cannot be parsed gets a FORMERR reply with the query's id."""
    head = b"\x12\x34" + b"\x01\x00" + b"\0\x01\0\0\0\0\0\0"
    wire, asked = ZONE.answer(head + tail, udp=True)
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert (response.id, response.rcode(), asked) == (0x1234, dns.rcode.FORMERR, None)
    assert response.flags & dns.flags.QR
    assert response.flags & dns.flags.RD


@pytest.mark.parametrize("wire", [b"", bytes(11), ask("a.b", "A").to_wire()], ids=len)
def test_dns_server_ignores_responses(wire: bytes) -> None:
    """The DNS server ignores responses, because a reply could loop between two servers."""
    assert ZONE.answer(wire, udp=True) == (None, None)


@pytest.mark.parametrize(
    ("query", "rcode"),
    [
        (dns.update.UpdateMessage("example.com"), dns.rcode.NOTIMP),
        (dns.message.Message(1), dns.rcode.FORMERR),
        (dns.message.make_query("version.bind", "TXT", rdclass="CH"), dns.rcode.REFUSED),
    ],
)
def test_unsupported_dns_query_gets_its_error_code(
    query: dns.message.Message, rcode: dns.rcode.Rcode
) -> None:
    """An update, a query without a question and a query of another class get different errors."""
    wire, _ = ZONE.answer(query.to_wire(), udp=True)
    assert wire is not None
    assert dns.message.from_wire(wire).rcode() == rcode


@given(wire=st.binary(max_size=200), keep=st.integers(0, 40))
def test_dns_server_survives_arbitrary_bytes(wire: bytes, keep: int) -> None:
    """Arbitrary bytes, even after a valid header, get a DNS reply or none, but no crash."""
    head = dns.message.make_query("www.example.com", "A", use_edns=0).to_wire()[:keep]
    answer, _ = ZONE.answer(head + wire, udp=True)
    if answer is not None:
        assert dns.message.from_wire(answer).flags & dns.flags.QR
