"""DNS replies for the names of peers on a container's networks.

Each DNS query reads the files again, and files are replaced as a whole. A reply is therefore as
recent as the last mydocker call, and there is no cache to invalidate.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
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
import dns.wire
from dns.message import Message

from runtime.network.etc_files import searched, upstream
from runtime.network.ipam import Member, Members
from runtime.records import DEFAULT_NETWORK, Address
from runtime.store import Store, read_json

TTL: Final = 0
"""TTL of a reply in seconds; clients must not cache it because containers come and go."""
_TYPE_AND_CLASS: Final = 4
"""Bytes after the name of a question (RFC 1035, 4.1.2)."""
_ROOT: Final = 0
"""The root name, as the owner of EDNS's record (RFC 6891, 6.1.2)."""
_VERSIONS: Final = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}


class Upstream(NamedTuple):
    """Resolvers for names that belong to no peer.

    They are queried from the container's netns if `from_inside` is true, else from the host's.
    """

    servers: list[str]
    from_inside: bool


class DnsNames:
    """DNS names of the containers in one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- from the files --------------------------------------------------------

    def members(self, identity: str) -> dict[str, dict[str, Member]]:
        """Return the members of a container's networks, by network and id."""
        networks = [item.network for item in self._store.state(identity).endpoints]
        return {
            name: Members(f"{self._store.networks}/{name}").read()
            for name in networks
            if name != DEFAULT_NETWORK
        }

    def upstream(self, identity: str) -> Upstream:
        """Return the resolvers to forward to; none if all of the container's networks are internal.

        Resolvers that the user named are queried from the container's netns, so that forwarding
        reaches only addresses that the container itself may reach.
        """
        asked_for = self._store.config(identity).dns
        if asked_for:
            return Upstream(asked_for, from_inside=True)
        endpoints = self._store.state(identity).endpoints
        leads_out = any(item.gateway or item.gateway6 for item in endpoints)
        return Upstream(upstream() if leads_out else [], from_inside=False)

    def _owns(self, networks: dict[str, dict[str, Member]], address: Address) -> bool:
        """Return whether an address, in use or not, lies in one of these networks."""
        for name in networks:
            config = read_json(f"{self._store.networks}/{name}/config.json")
            for text in (config["subnet"], config["subnet6"]):
                if text and address in ip_network(text):
                    return True
        return False

    # --- answers -----------------------------------------------------------------

    def answer(self, identity: str, query: Message) -> Message | None:
        """Return the reply from the names of peers; `None` if the query is about another name."""
        question = query.question[0]
        if question.rdclass != dns.rdataclass.IN:
            return None
        networks = self.members(identity)
        if question.name.is_subdomain(dns.reversename.ipv4_reverse_domain) or (
            question.name.is_subdomain(dns.reversename.ipv6_reverse_domain)
        ):
            return self._reverse(query, networks)
        addresses = list(_addresses(networks, question.name))
        if not addresses:
            return self._searched_for(query, networks)
        random.shuffle(addresses)
        version = _VERSIONS.get(question.rdtype)
        fitting = [str(item) for item in addresses if item.version == version]
        return _filled(query, fitting)

    def _searched_for(
        self, query: Message, networks: dict[str, dict[str, Member]]
    ) -> Message | None:
        """Reply without an address if a peer's name has one of the host's search domains appended.

        The C library sends such a query if the peer has no address of the queried family. The
        query must not reach an outside resolver, which could reply in the peer's place.
        """
        question = query.question[0]
        version = _VERSIONS.get(question.rdtype)
        for domain in searched() if version else ():
            try:
                origin = dns.name.from_text(domain)
            except dns.exception.DNSException:
                continue  # the C library skips an invalid name too
            if question.name.is_subdomain(origin) and question.name != origin:
                peers = list(_addresses(networks, question.name.relativize(origin)))
                if peers and all(item.version != version for item in peers):
                    return _filled(query, [])
        return None

    def _reverse(self, query: Message, networks: dict[str, dict[str, Member]]) -> Message | None:
        question = query.question[0]
        try:
            address = ip_address(dns.reversename.to_address(question.name))
        except dns.exception.SyntaxError:
            return None  # only part of an address
        for network, members in networks.items():
            for member in members.values():
                if str(address) in member.addresses:
                    known = question.rdtype == dns.rdatatype.PTR
                    return _filled(query, [f"{member.names[0]}.{network}."] if known else [])
        if not self._owns(networks, address):
            return None
        return unknown(query)


def _addresses(networks: dict[str, dict[str, Member]], name: dns.name.Name) -> Iterator[Address]:
    """Yield the addresses of a name, with or without the network's name appended."""
    asked = name.to_text(omit_final_dot=True).lower()
    for network, members in networks.items():
        for member in members.values():
            own = {*member.names, *(f"{item}.{network.lower()}" for item in member.names)}
            if asked in own:
                yield from map(ip_address, member.addresses)


def read(wire: bytes) -> Message | None:
    """Parse a query with one question; `None` for any other message, which gets no reply.

    Of the query's other records, only the EDNS record is used, for the size limit of the reply.
    Parsing thousands of records would take a minute, in which no other query gets a reply.
    """
    try:
        parser = dns.wire.Parser(wire)
        _, _, *counts = parser.get_struct("!HHHHHH")
        if counts[:3] != [1, 0, 0]:
            return None
        parser.get_name()
        parser.get_bytes(_TYPE_AND_CLASS)
        message = dns.message.from_wire(wire, question_only=True)
        if counts[3]:
            owner, kind, payload = parser.get_struct("!BHH")
            if (owner, kind) == (_ROOT, dns.rdatatype.OPT):
                message.use_edns(0, payload=payload)
    except dns.exception.DNSException:
        return None
    asks = not message.flags & dns.flags.QR and message.opcode() == dns.opcode.QUERY
    return message if asks else None


def unknown(query: Message) -> Message:
    """Reply NXDOMAIN, for a container without a resolver other than that for its peers' names."""
    response = _filled(query, [])
    response.set_rcode(dns.rcode.NXDOMAIN)
    return response


def failed(query: Message) -> Message:
    """Reply SERVFAIL: no resolver that could know the name has replied."""
    response = _filled(query, [])
    response.set_rcode(dns.rcode.SERVFAIL)
    return response


def fitted(answer: Message, room: int) -> bytes:
    """Encode a reply in at most `room` bytes, truncated with TC set if necessary (RFC 2181, 9)."""
    with suppress(dns.exception.TooBig):
        return answer.to_wire(max_size=room)
    (whole,) = answer.answer
    records = list(whole)

    def holding(count: int) -> bytes:
        some = dns.rrset.from_rdata_list(whole.name, whole.ttl, records[:count]) if count else None
        answer.answer = [some] if some else []
        return answer.to_wire(max_size=room)

    answer.flags |= dns.flags.TC
    none, one = len(holding(0)), len(holding(1))
    return holding((room - none) // (one - none))  # all addresses of a family have the same size


def _filled(query: Message, values: list[str]) -> Message:
    response = dns.message.make_response(query, recursion_available=True)
    question = query.question[0]
    if values:
        rdatas = [dns.rdata.from_text("IN", question.rdtype, value) for value in values]
        response.answer.append(dns.rrset.from_rdata_list(question.name, TTL, rdatas))
    return response
