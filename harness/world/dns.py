"""DNS zones of the world: `example.com`, and the reverse zones of all addresses.

One server in the closed world knows all names. Its replies are authoritative for every name,
whether the name exists or not (RFC 1034, RFC 2308). The module does no I/O: it maps a query's bytes
to those of the reply. dnspython parses and builds the messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset
from dns.name import Name
from dns.rdata import Rdata

from harness.model.topology import SENTINEL_ZONE, WWW, Address, Topology

UDP_LIMIT: Final = 512
"""Maximum length of a UDP reply in bytes, regardless of the client's offer: RFC 1035, 2.3.4.

All replies except those for `BIG` fit.
"""
TTL: Final = 0
"""TTL of every record, in seconds: no resolver caches it, so the server gets every query."""
BIG: Final = "big.example.com"
"""Name whose TXT and A records are too large for a datagram.

The reply over UDP has the TC bit set, the reply over TCP is complete (RFC 7766).
"""
BIG_TEXT: Final = tuple(f"{number:03d}" + "x" * 197 for number in range(40))
BIG_ADDRESSES: Final = tuple(IPv4Address("203.0.113.100") + number for number in range(120))
"""Addresses that no namespace of the world has."""

_ORIGIN: Final = "example.com."
_SOA: Final = "dns.example.com. hostmaster.example.com. 1 3600 600 86400 0"
_HEADER: Final = 12
_RESPONSE: Final = 0x80
_KEPT_OF_QUERY: Final = 0x79  # opcode and RD


class DnsQuery(NamedTuple):
    """The question of a DNS query.

    `name` is in lower case without the final dot, `type` is a name such as `AAAA`.
    """

    name: str
    type: str


class Zone:
    """Zone data of the world's DNS server, for one topology."""

    def __init__(self, topology: Topology) -> None:
        self._origin = dns.name.from_text(_ORIGIN)
        self._soa = _rdata("SOA", _SOA)
        self._records: dict[Name, list[Rdata]] = {
            self._origin: [self._soa, _rdata("NS", "dns.example.com.")],
            dns.name.from_text(BIG): [
                _rdata("TXT", " ".join(f'"{text}"' for text in BIG_TEXT)),
                *map(_address, BIG_ADDRESSES),
            ],
        }
        for label, address in _names(topology):
            name = self._origin if label == "@" else dns.name.from_text(label, self._origin)
            reverse = dns.reversename.from_address(str(address))
            self._records.setdefault(name, []).append(_address(address))
            self._records.setdefault(reverse, []).append(_rdata("PTR", name.to_text()))
        self._sentinel = dns.name.from_text(SENTINEL_ZONE)
        self._anything = self._records[dns.name.from_text(WWW)]

    def answer(self, query: bytes, *, udp: bool) -> tuple[bytes | None, DnsQuery | None]:
        """Return the reply to a DNS query, and the query's question if it could be parsed.

        A message that is not a query (a response or a fragment) gets no reply. A malformed query
        gets FORMERR. A reply that is too long for UDP is empty and has the TC bit set.
        """
        if len(query) < _HEADER or query[2] & _RESPONSE:
            return None, None
        try:
            parsed = dns.message.from_wire(query)
        except dns.exception.DNSException:
            flags = bytes((_RESPONSE | query[2] & _KEPT_OF_QUERY, dns.rcode.FORMERR))
            return query[:2] + flags + bytes(8), None
        response = dns.message.make_response(parsed, recursion_available=True)
        if parsed.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
        elif len(parsed.question) != 1:  # RFC 9619
            response.set_rcode(dns.rcode.FORMERR)
        elif parsed.question[0].rdclass != dns.rdataclass.IN:
            response.set_rcode(dns.rcode.REFUSED)
        else:
            self._fill(response)
        limit = UDP_LIMIT if udp else 65535
        return response.to_wire(max_size=limit, prefer_truncation=True), _question(parsed)

    def _fill(self, response: dns.message.Message) -> None:
        name, kind = response.question[0].name, response.question[0].rdtype
        response.flags |= dns.flags.AA
        known = self._anything if name.is_subdomain(self._sentinel) else self._records.get(name, [])
        wanted: dict[dns.rdatatype.RdataType, list[Rdata]] = {}
        for rdata in known:
            if kind in (rdata.rdtype, dns.rdatatype.ANY):
                wanted.setdefault(rdata.rdtype, []).append(rdata)
        for rdatas in wanted.values():
            response.answer.append(dns.rrset.from_rdata_list(name, TTL, rdatas))
        if not wanted:
            apex = self._origin if name.is_subdomain(self._origin) else dns.name.root
            response.authority.append(dns.rrset.from_rdata(apex, TTL, self._soa))
        # A name above an existing one exists too, if only as a branch (RFC 8020).
        if not known and not any(other.is_subdomain(name) for other in self._records):
            response.set_rcode(dns.rcode.NXDOMAIN)


def _question(query: dns.message.Message) -> DnsQuery | None:
    if not query.question:
        return None
    first = query.question[0]
    name = first.name.to_text(omit_final_dot=True).lower()
    return DnsQuery(name, dns.rdatatype.to_text(first.rdtype))


def _names(topology: Topology) -> Iterator[tuple[str, Address]]:
    """Yield the first label of each name below `example.com`, with its address."""
    named = {
        "www": topology.internet,
        "dns": topology.resolver,
        "gateway": topology.internet_gateway,
        "host": topology.host,
        "attacker": topology.attacker,
        "br0": topology.br0,
        "ns1": topology.ns1,
        "ns2": topology.ns2,
        "r1": topology.lan_gateway,
    }
    for label, interfaces in named.items():
        yield from ((label, interface.ip) for interface in interfaces)
    for number in range(1, topology.routers):
        lower, upper = topology.link(number)
        yield from ((f"r{number}", interface.ip) for interface in lower)
        yield from ((f"r{number + 1}", interface.ip) for interface in upper)


def _rdata(kind: str, text: str) -> Rdata:
    return dns.rdata.from_text("IN", kind, text)


def _address(address: Address) -> Rdata:
    return _rdata("A" if address.version == 4 else "AAAA", str(address))
