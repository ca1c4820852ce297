"""nftables through netlink: tables, chains and rules, without the `nft` binary.

A change is one transaction, applied completely or not at all (nfnetlink batch). A rule is a list of
expressions. The small functions below make expressions; each is named after the keyword of `nft`.
The comment of a rule is written to the rule's user data (linux/netfilter/nf_tables.h). `nft list
ruleset` shows it, and `rules()` returns it.

pyroute2 is not used because it has no owned tables. Also, the runtime writes rules at every start
on a bridge, and that takes less time than the import of pyroute2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, get_args

from linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    Netlink,
    Request,
    attr,
    attributes,
    be32,
    nest,
    text,
)
from linux.netns import NetNS
from linux.rtnetlink import Address, Network, address_family

Expression = bytes
Hook = Literal["prerouting", "input", "forward", "output", "postrouting"]
Verdict = Literal["accept", "drop", "return"]
Rejection = Literal[
    "no-route", "port-unreachable", "host-unreachable", "admin-prohibited", "tcp-reset"
]

_SUBSYSTEM: Final = 10
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN = 0, 1, 2, 3
_NEWRULE, _GETRULE, _DELRULE = 6, 7, 8
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_FAMILIES: Final = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
_HOOKS: Final = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_OWNED: Final = 2
_REGISTER, _SECOND = 1, 2
_EQ, _NEQ = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META: Final = {"iif": 4, "oif": 5, "iifname": 6, "oifname": 7, "nfproto": 15, "l4proto": 16}
_CT_STATE, _CT_STATUS, _DNATED = 0, 2, 0x20
_CT_BITS: Final = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
_VERDICTS: Final = {"accept": 1, "drop": 0, "return": -5, "jump": -3}
PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_REJECT_RESET, _REJECT_ICMP = 1, 2
_REJECTIONS: Final[tuple[Rejection, ...]] = get_args(Rejection)
"""The kinds of rejection: the NFT_REJECT_ICMPX codes in order, then the TCP reset."""
_NAME_LENGTH: Final = 16


# --- expressions -------------------------------------------------------------


def expression(name: str, *data: bytes) -> Expression:
    """Encode an expression by its name in the kernel, with its attributes."""
    return nest(1, text(1, name), nest(2, *data))


def compare(value: bytes, *, op: int = _EQ) -> Expression:
    """Compare the loaded value (first register) with `value`; `op` is an NFT_CMP_… constant."""
    return expression("cmp", be32(1, _REGISTER), be32(2, op), nest(3, attr(1, value)))


def _meta(key: str) -> Expression:
    return expression("meta", be32(1, _REGISTER), be32(2, _META[key]))


def _payload(base: int, offset: int, length: int) -> Expression:
    return expression(
        "payload", be32(1, _REGISTER), be32(2, base), be32(3, offset), be32(4, length)
    )


def _mask(mask: bytes) -> Expression:
    return expression(
        "bitwise",
        be32(1, _REGISTER),
        be32(2, _REGISTER),
        be32(3, len(mask)),
        nest(4, attr(1, mask)),
        nest(5, attr(1, bytes(len(mask)))),
    )


def _interface(key: str, name: str, *, op: int) -> list[Expression]:
    # A name that ends in * is a prefix, compared without its terminating zeros.
    raw = name.encode()
    value = raw[:-1] if raw.endswith(b"*") else raw.ljust(_NAME_LENGTH, b"\0")
    return [_meta(key), compare(value, op=op)]


def iifname(name: str, *, is_not: bool = False) -> list[Expression]:
    """Match the name of the input interface; `docker*` matches a prefix."""
    return _interface("iifname", name, op=_NEQ if is_not else _EQ)


def oifname(name: str, *, is_not: bool = False) -> list[Expression]:
    """Match the name of the output interface; `docker*` matches a prefix."""
    return _interface("oifname", name, op=_NEQ if is_not else _EQ)


def family(version: int) -> list[Expression]:
    """Match IPv4 or IPv6 packets; an `inet` table needs this before a match of addresses."""
    return [_meta("nfproto"), compare(bytes([2 if version == 4 else 10]))]


def l4proto(protocol: str) -> list[Expression]:
    """Match the transport protocol: tcp, udp, sctp, icmp, icmpv6."""
    return [_meta("l4proto"), compare(bytes([PROTOCOLS[protocol]]))]


def _address(network: Network, offset: int, *, op: int) -> list[Expression]:
    size = network.network_address.max_prefixlen // 8
    found = [*family(network.version), _payload(_NETWORK_HEADER, offset, size)]
    if network.prefixlen < network.max_prefixlen:
        found.append(_mask(network.netmask.packed))
    return [*found, compare(network.network_address.packed, op=op)]


def saddr(network: Network, *, is_not: bool = False) -> list[Expression]:
    """Match packets with a source address in `network`."""
    offset = 12 if network.version == 4 else 8
    return _address(network, offset, op=_NEQ if is_not else _EQ)


def daddr(network: Network, *, is_not: bool = False) -> list[Expression]:
    """Match packets with a destination address in `network`."""
    offset = 16 if network.version == 4 else 24
    return _address(network, offset, op=_NEQ if is_not else _EQ)


def transport(offset: int, value: bytes, *, op: int = _EQ) -> list[Expression]:
    """Match bytes of the transport header at an offset; put `l4proto` before it."""
    return [_payload(_TRANSPORT_HEADER, offset, len(value)), compare(value, op=op)]


def dport(port: int) -> list[Expression]:
    """Match the destination port; put `l4proto` before it."""
    return transport(2, struct.pack(">H", port))


def sport(port: int) -> list[Expression]:
    """Match the source port; put `l4proto` before it."""
    return transport(0, struct.pack(">H", port))


def icmp_type(number: int) -> list[Expression]:
    """Match an ICMP type; put `l4proto` before it."""
    return transport(0, bytes([number]))


def ct_state(*states: str) -> list[Expression]:
    """Match conntrack states: new, established, related, invalid, untracked."""
    return _ct(_CT_STATE, sum(_CT_BITS[state] for state in states))


def ct_dnat() -> list[Expression]:
    """Match flows with a translated destination, such as those through a published port."""
    return _ct(_CT_STATUS, _DNATED)


def _ct(key: int, bits: int) -> list[Expression]:
    load = expression("ct", be32(1, _REGISTER), be32(2, key))
    return [load, _mask(struct.pack("=I", bits)), compare(bytes(4), op=_NEQ)]


def to_local() -> list[Expression]:
    """Match packets to this namespace's own addresses (`fib daddr type local`)."""
    return [
        expression("fib", be32(1, _REGISTER), be32(2, 3), be32(3, 2)),
        compare(struct.pack("=I", 2)),
    ]


def counter() -> list[Expression]:
    """Count the packets that reach this expression."""
    return [expression("counter")]


def masquerade() -> list[Expression]:
    """Rewrite the source address to the address of the output interface."""
    return [expression("masq")]


def immediate(register: int, value: bytes) -> Expression:
    """Load a value into a register."""
    return expression("immediate", be32(1, register), nest(2, attr(1, value)))


def dnat(to: Address, port: int | None = None) -> list[Expression]:
    """Rewrite the destination address, and the port if one is given."""
    number = address_family(to.version)
    load = [immediate(_REGISTER, to.packed)]
    nat = [be32(1, 1), be32(2, number), be32(3, _REGISTER)]
    if port is not None:
        load.append(immediate(_SECOND, struct.pack(">H", port)))
        nat.append(be32(5, _SECOND))
    return [*load, expression("nat", *nat)]


def verdict(name: Verdict) -> list[Expression]:
    """Accept or drop the packet, or return from the chain."""
    return _decide(be32(1, _VERDICTS[name]))


def jump(chain: str) -> list[Expression]:
    """Jump to another chain of the table and return."""
    return _decide(be32(1, _VERDICTS["jump"]), text(2, chain))


def _decide(*data: bytes) -> list[Expression]:
    return [expression("immediate", be32(1, 0), nest(2, nest(2, *data)))]


def reject(how: Rejection = "port-unreachable") -> list[Expression]:
    """Reject the packet with an ICMP error of its own family; works in `inet` tables.

    With `tcp-reset` the packet is rejected with a TCP reset; put `l4proto("tcp")` before it.
    """
    if how == "tcp-reset":
        return [expression("reject", be32(1, _REJECT_RESET))]
    return [expression("reject", be32(1, _REJECT_ICMP), attr(2, bytes([_REJECTIONS.index(how)])))]


_INTERNET_CHECKSUM: Final = 1
_CHECKSUMS: Final = {"udp": 6, "tcp": 16}
"""Offset of the checksum in the transport header, in bytes."""


def set_port(
    which: Literal["source", "destination"], protocol: Literal["udp", "tcp"], port: int
) -> list[Expression]:
    """Rewrite a port and update the checksum; put `l4proto` before it."""
    return [
        immediate(_REGISTER, struct.pack(">H", port)),
        expression(
            "payload",
            be32(5, _REGISTER),
            be32(2, _TRANSPORT_HEADER),
            be32(3, 0 if which == "source" else 2),
            be32(4, 2),
            be32(6, _INTERNET_CHECKSUM),
            be32(7, _CHECKSUMS[protocol]),
        ),
    ]


# --- tables, chains, rules ---------------------------------------------------


class Table(NamedTuple):
    """A table, identified by its family (`inet`, `ip`, `ip6`, `bridge`, …) and its name."""

    family: str
    name: str


class Rule(NamedTuple):
    """A rule as the kernel reports it: its chain, handle and comment."""

    chain: str
    handle: int
    comment: str


def _body(table: Table, *data: bytes) -> bytes:
    return struct.pack(">BBH", _FAMILIES[table.family], 0, 0) + b"".join(data)


def _request(kind: int, flags: int, body: bytes, what: str) -> Request:
    return Request(_SUBSYSTEM << 8 | kind, flags, body, what)


def add_table(table: Table, *, owned: bool = False) -> Request:
    """Create a table; an existing table stays as it is.

    An `owned` table belongs to the socket that sends the request: no other socket can change the
    table, not even by a flush of the ruleset. The kernel removes the table when the last process
    closes that socket. This needs Linux 5.12 or later.
    """
    data = _body(table, text(1, table.name), be32(2, _OWNED if owned else 0))
    return _request(_NEWTABLE, NLM_F_CREATE, data, f"add table {table.name}")


def del_table(table: Table) -> Request:
    """Remove a table with all its chains and rules."""
    return _request(_DELTABLE, 0, _body(table, text(1, table.name)), f"remove table {table.name}")


def flush() -> Request:
    """Remove every table that no process owns, as `nft flush ruleset` does."""
    return _request(_DELTABLE, 0, bytes(4), "flush the ruleset")


def add_chain(
    table: Table,
    name: str,
    *,
    hook: Hook | None = None,
    priority: int = 0,
    kind: Literal["filter", "nat", "route"] = "filter",
    policy: Literal["accept", "drop"] = "accept",
) -> Request:
    """Create a chain; with a `hook`, a base chain with `priority` (lower numbers run earlier)."""
    data = [text(1, table.name), text(3, name)]
    if hook is not None:
        data.append(nest(4, be32(1, _HOOKS[hook]), be32(2, priority)))
        data.append(be32(5, 1 if policy == "accept" else 0))
        data.append(text(7, kind))
    return _request(_NEWCHAIN, NLM_F_CREATE, _body(table, *data), f"add chain {name}")


def add_rule(
    table: Table, chain: str, *parts: Iterable[Expression], comment: str = "", first: bool = False
) -> Request:
    """Add a rule at the end of a chain, or with `first` at its beginning."""
    data = [text(1, table.name), text(2, chain)]
    data.append(nest(4, *(expression for part in parts for expression in part)))
    if comment:
        raw = comment.encode()[:253] + b"\0"
        data.append(attr(7, bytes([0, len(raw)]) + raw))
    flags = NLM_F_CREATE | (0 if first else NLM_F_APPEND)
    return _request(_NEWRULE, flags, _body(table, *data), f"add rule to {chain} ({comment})")


def del_rule(table: Table, rule: Rule) -> Request:
    """Remove one rule by its handle."""
    handle = attr(3, struct.pack(">Q", rule.handle))
    data = _body(table, text(1, table.name), text(2, rule.chain), handle)
    return _request(_DELRULE, 0, data, f"remove rule {rule.handle} of {rule.chain}")


class Nft:
    """The nftables of a namespace, or with `fd` of the namespace of an open netlink socket."""

    def __init__(self, netns: NetNS | None = None, *, fd: int | None = None) -> None:
        self._netlink = Netlink(netns, protocol=NETLINK_NETFILTER, fd=fd)

    def fileno(self) -> int:
        """Return the descriptor of the socket that owns the owned tables."""
        return self._netlink.fileno()

    def apply(self, requests: Sequence[Request]) -> None:
        """Apply all requests in one transaction, or apply none and raise `NetlinkError`."""
        marker = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
        begin = Request(_BATCH_BEGIN, 0, marker, "begin nft transaction")
        end = Request(_BATCH_END, 0, marker, "commit nft transaction")
        self._netlink.send_transaction([begin, *requests, end])

    def tables(self) -> list[Table]:
        """Return every table of the namespace."""
        names = {number: name for name, number in _FAMILIES.items()}
        found = []
        for answer in self._netlink.dump(_SUBSYSTEM << 8 | _GETTABLE, bytes(4), "list tables"):
            fields = dict(attributes(answer, 4))
            found.append(Table(names[answer[0]], fields[1].rstrip(b"\0").decode()))
        return found

    def rules(self, table: Table) -> list[Rule]:
        """Return every rule of a table in order; an empty list if the table does not exist."""
        return [rule for rule, _ in self.expressions(table)]

    def expressions(self, table: Table) -> list[tuple[Rule, bytes]]:
        """Return every rule of a table, each with its encoded expressions."""
        found = []
        body, what = _body(table, text(1, table.name)), f"list rules of {table.name}"
        for answer in self._netlink.dump(_SUBSYSTEM << 8 | _GETRULE, body, what):
            fields = dict(attributes(answer, 4))
            chain = fields[2].rstrip(b"\0").decode()
            handle = int.from_bytes(fields[3], "big")
            rule = Rule(chain, handle, comment_of(fields.get(7, b"")))
            found.append((rule, fields.get(4, b"")))
        return found

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def __enter__(self) -> Nft:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def comment_of(userdata: bytes) -> str:
    """Return the comment in a rule's user data (NFTA_RULE_USERDATA); `""` if there is none."""
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == 0:
            raw = userdata[offset + 2 : offset + 2 + length]
            return raw.rstrip(b"\0").decode(errors="replace")
        offset += 2 + length
    return ""
