"""Decoder of nftables rules, and expressions that only faults need."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from linux import rtnetlink
from linux.netlink import attr, attributes, be32, nest, text
from linux.nftables import Expression, Nft, Rule, Table, family, l4proto, verdict
from linux.rtnetlink import Address

_WAYS: Final = {struct.pack(">I", 6): "in", struct.pack(">I", 7): "out"}
_VERDICTS: Final = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}


class DecodedRule(NamedTuple):
    """A rule with its verdict and the interfaces that it matches.

    `does` is `drop`, `accept`, `jump`, `return`, `reject`, `masq`, `nat` or `""`. `links` are
    these interfaces, as `("in", "eth0")` or `("out", "docker0")`.
    """

    table: Table
    rule: Rule
    does: str
    kinds: tuple[str, ...]
    links: tuple[tuple[str, str], ...]

    @property
    def refuses(self) -> bool:
        """True if the rule drops or rejects packets."""
        return self.does in ("drop", "reject")


def decode_rules(opened: Nft) -> list[DecodedRule]:
    """Return every nftables rule of a namespace, table by table."""
    return [entry for table in opened.tables() for entry in _of(opened, table)]


def _of(opened: Nft, table: Table) -> Iterator[DecodedRule]:
    for rule, expressions in opened.expressions(table):
        kinds: list[str] = []
        links: list[tuple[str, str]] = []
        does, way = "", ""
        for _, element in attributes(expressions):
            parts = dict(attributes(element))
            name = parts[1].rstrip(b"\0").decode()
            kinds.append(name)
            if name in ("reject", "masq", "nat", "queue"):
                does = name
            elif name == "immediate":
                does = _verdict(parts.get(2, b"")) or does
            elif name == "meta":
                way = _WAYS.get(dict(attributes(parts.get(2, b""))).get(2, b""), "")
            elif name == "cmp" and way:
                links.append((way, _compared(parts.get(2, b""))))
                way = ""
        yield DecodedRule(table, rule, does, tuple(kinds), tuple(links))


def _compared(data: bytes) -> str:
    """Return the interface name with which a comparison expression compares."""
    value = dict(attributes(dict(attributes(data)).get(3, b""))).get(1, b"")
    return value.rstrip(b"\0").decode(errors="replace")


def _verdict(data: bytes) -> str:
    """Return the verdict of an immediate expression; an empty text if it only loads a value."""
    value = dict(attributes(dict(attributes(data)).get(2, b"")))
    if 2 not in value:
        return ""
    (code,) = struct.unpack(">i", dict(attributes(value[2]))[1])
    return _VERDICTS.get(code, "")


DROP: Final = tuple(verdict("drop"))
_REGISTER, _SECOND = 1, 2
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_INET: Final = 1
_CT_MARK: Final = 3
_L4PROTO: Final = 16
"""NFT_META_L4PROTO (linux/netfilter/nf_tables.h)."""
_QUESTION: Final = 20
"""Offset of the queried name in bytes: behind the headers of UDP and DNS."""


def _expression(name: str, *data: bytes) -> Expression:
    return nest(1, text(1, name), nest(2, *data))


def _u32(value: int) -> bytes:
    """Pack a number in host byte order, as an nftables register has it."""
    return struct.pack("=I", value)


def _load(base: int, offset: int, length: int) -> Expression:
    place = (be32(2, base), be32(3, offset), be32(4, length))
    return _expression("payload", be32(1, _REGISTER), *place)


def _store(base: int, offset: int, length: int, checksum: int | None) -> Expression:
    place = [be32(5, _REGISTER), be32(2, base), be32(3, offset), be32(4, length)]
    if checksum is not None:
        place += [be32(6, _INET), be32(7, checksum)]
    return _expression("payload", *place)


def _bits(mask: bytes, toggled: bytes) -> Expression:
    registers = (be32(1, _REGISTER), be32(2, _REGISTER), be32(3, len(mask)))
    return _expression("bitwise", *registers, nest(4, attr(1, mask)), nest(5, attr(1, toggled)))


def _compare(value: bytes, op: Literal[0, 1, 2, 3, 4, 5] = 0) -> Expression:
    return _expression("cmp", be32(1, _REGISTER), be32(2, op), nest(3, attr(1, value)))


# --- matches -------------------------------------------------------------------


def fragments(version: int) -> list[Expression]:
    """Match IP fragments; use it before the kernel reassembles them (priority -400)."""
    return [*family(version), *is_fragment(version)]


def is_fragment(version: int) -> list[Expression]:
    """Match IP fragments in a rule that sees only packets of this family."""
    if version == 6:
        return [_load(_NETWORK, 6, 1), _compare(bytes([44]))]
    more_or_offset = _bits(b"\x3f\xff", b"\0\0")
    return [_load(_NETWORK, 6, 2), more_or_offset, _compare(b"\0\0", 1)]


def longer_than(size: int) -> list[Expression]:
    """Match packets of more than `size` bytes, including unsegmented GSO packets."""
    length = _expression("meta", be32(1, _REGISTER), be32(2, 0))
    host_order = _expression(
        "byteorder",
        be32(1, _REGISTER),
        be32(2, _REGISTER),
        be32(3, 1),
        be32(4, 4),
        be32(5, 4),
    )
    return [length, host_order, _compare(struct.pack(">I", size), 4)]


def of_protocol(number: int) -> list[Expression]:
    """Match packets of the protocol with this number."""
    return [_expression("meta", be32(1, _REGISTER), be32(2, _L4PROTO)), _compare(bytes([number]))]


def tcp_resets() -> list[Expression]:
    """Match TCP resets."""
    return with_flags("R")


def with_flags(flags: str) -> list[Expression]:
    """Match TCP segments with all of these flags, given as tcpdump's letters (C for CWR)."""
    bits = bytes([sum(1 << "FSRPAUEC".index(flag) for flag in flags)])
    return [*l4proto("tcp"), _load(_TRANSPORT, 13, 1), _bits(bits, b"\0"), _compare(bits)]


def with_dscp() -> list[Expression]:
    """Match IPv4 packets with a DSCP other than 0."""
    return [*family(4), _load(_NETWORK, 1, 1), _bits(b"\xfc", b"\0"), _compare(b"\0", 1)]


def other_dns_records(name: str) -> list[Expression]:
    """Match DNS replies over UDP with a one-label name and a type other than A and AAAA."""
    asked = bytes([len(name)]) + name.encode() + b"\0"
    kind = _load(_TRANSPORT, _QUESTION + len(asked), 2)
    answer = [_load(_TRANSPORT, 10, 1), _bits(b"\x80", b"\0"), _compare(b"\x80")]
    about = [_load(_TRANSPORT, _QUESTION, len(asked)), _compare(asked)]
    addresses = [part for number in (1, 28) for part in (kind, _compare(bytes([0, number]), 1))]
    return [*l4proto("udp"), *answer, *about, *addresses]


def empty_datagrams() -> list[Expression]:
    """Match empty UDP datagrams."""
    return [*l4proto("udp"), _load(_TRANSPORT, 4, 2), _compare(struct.pack(">H", 8))]


def datagrams_without_checksum() -> list[Expression]:
    """Match UDP datagrams without a checksum."""
    return [*l4proto("udp"), _load(_TRANSPORT, 6, 2), _compare(b"\0\0")]


def echo_requests(protocol: str) -> list[Expression]:
    """Match echo requests."""
    kind = 8 if protocol == "icmp" else 128
    return [*l4proto(protocol), _load(_TRANSPORT, 0, 1), _compare(bytes([kind]))]


def icmp_errors(version: int, kind: int, code: int | None = None) -> list[Expression]:
    """Match ICMP messages of this type, and of this code if one is given."""
    found = [*family(version), *l4proto("icmp" if version == 4 else "icmpv6")]
    found += [_load(_TRANSPORT, 0, 1), _compare(bytes([kind]))]
    if code is not None:
        found += [_load(_TRANSPORT, 1, 1), _compare(bytes([code]))]
    return found


def of_marked_flow(mark: int) -> list[Expression]:
    """Match packets whose flow has this conntrack mark."""
    return [_expression("ct", be32(1, _REGISTER), be32(2, _CT_MARK)), _compare(_u32(mark))]


def to_mac(mac: str) -> list[Expression]:
    """Match frames to this MAC; for a table of the bridge family."""
    return [_load(_LINK, 0, 6), _compare(rtnetlink.mac_bytes(mac))]


# --- changes -------------------------------------------------------------------


def bridged(version: int) -> list[Expression]:
    """Match frames with a packet of this address family; for a table of the bridge family."""
    ethertype = b"\x08\x00" if version == 4 else b"\x86\xdd"
    return [_expression("meta", be32(1, _REGISTER), be32(2, 1)), _compare(ethertype)]


def set_ttl(version: int, ttl: int, *, bridge: bool = False) -> list[Expression]:
    """Set the TTL or hop limit; with `bridge` in a table of the bridge family."""
    if version == 6:
        keep, change, offset, checksum = b"\xff\x00", bytes([0, ttl]), 6, None
    else:
        keep, change, offset, checksum = b"\x00\xff", bytes([ttl, 0]), 8, 10
    which = bridged(version) if bridge else family(version)
    head = [*which, _load(_NETWORK, offset, 2), _bits(keep, change)]
    return [*head, _store(_NETWORK, offset, 2, checksum)]


def set_class(version: int, number: int) -> list[Expression]:
    """Set the traffic class (DSCP and ECN)."""
    keep, change = (b"\xf0\x0f", number << 4) if version == 6 else (b"\xff\x00", number)
    head = [*family(version), _load(_NETWORK, 0, 2), _bits(keep, struct.pack(">H", change))]
    return [*head, _store(_NETWORK, 0, 2, None if version == 6 else 10)]


def set_nxdomain() -> list[Expression]:
    """Turn a DNS reply over UDP into NXDOMAIN (RFC 1035, 4.1.1)."""
    head = [_load(_TRANSPORT, 10, 2), _bits(b"\xff\xf0", b"\0\3")]
    return [*head, _store(_TRANSPORT, 10, 2, 6)]


def mark_flow(mark: int) -> list[Expression]:
    """Set the conntrack mark of the packet's flow."""
    value = _expression("immediate", be32(1, _REGISTER), nest(2, attr(1, _u32(mark))))
    return [value, _expression("ct", be32(2, _CT_MARK), be32(4, _REGISTER))]


def overwrite_tcp(offset: int, data: bytes) -> list[Expression]:
    """Overwrite bytes of a TCP segment, and correct the checksum."""
    value = _expression("immediate", be32(1, _REGISTER), nest(2, attr(1, data)))
    return [*l4proto("tcp"), value, _store(_TRANSPORT, offset, len(data), 16)]


def snat(to: Address) -> list[Expression]:
    """Translate the source address to this address."""
    number = socket.AF_INET if to.version == 4 else socket.AF_INET6
    value = _expression("immediate", be32(1, _REGISTER), nest(2, attr(1, to.packed)))
    return [value, _expression("nat", be32(1, 0), be32(2, number), be32(3, _REGISTER))]


def masquerade_as_port(port: int) -> list[Expression]:
    """Masquerade with a fixed source port."""
    value = nest(2, attr(1, struct.pack(">H", port)))
    load = [_expression("immediate", be32(1, register), value) for register in (_REGISTER, _SECOND)]
    return [*load, _expression("masq", be32(1, 0x2), be32(2, _REGISTER), be32(3, _SECOND))]


def masquerade_at_random() -> list[Expression]:
    """Masquerade with a random source port."""
    return [_expression("masq", be32(1, 0x4 | 0x10))]
