"""Traces of single packets through nftables, as `nft monitor trace` prints them.

A `Tracer` adds a table to a namespace. The table's chains come first at the hooks prerouting and
output, and their rules set `meta nftrace` on matching packets. The kernel then reports each rule
and each policy that such a packet traverses to a netlink group. The setting stays on the packet
until the packet leaves the namespace. Rules of legacy iptables (not iptables-nft) are not reported.

Source: linux/netfilter/nf_tables.h (NFTA_TRACE_…), nft(8) "meta nftrace". pyroute2 is not used
because it has neither traces nor owned tables.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple, Self

from linux.netlink import NETLINK_NETFILTER, Netlink, Request, attributes, be32
from linux.netns import NetNS
from linux.nftables import (
    Expression,
    Hook,
    Nft,
    Table,
    add_chain,
    add_rule,
    add_table,
    compare,
    del_table,
    expression,
    immediate,
    transport,
)

_EARLIEST: Final = -1000
"""Priority of the tracer's chains: before raw (-300) and all chains before raw."""

_GROUP: Final = 9  # NFNLGRP_NFTRACE
_MSG_TRACE: Final = 10 << 8 | 17
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _ID = 1, 2, 3, 4, 5, 6
_NETWORK_HEADER, _TRANSPORT_HEADER = 8, 9
_IIF, _OIF, _POLICY = 10, 12, 16
_TYPES: Final = {1: "policy", 2: "return", 3: "rule"}
_FAMILIES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_VERDICTS: Final = dict(
    zip(
        range(-5, 4),
        ("return", "goto", "jump", "break", "continue", "drop", "accept", "stolen", "queue"),
        strict=True,
    )
)
_REGISTER: Final = 1
_META_NFTRACE: Final = 12
_AT_LEAST: Final = 5  # NFT_CMP_GTE
_META_PROTOCOL: Final = 1
_ETH_P_ARP: Final = b"\x08\x06"
_HOOKS: Final[dict[str, tuple[Hook, ...]]] = {
    "inet": ("prerouting", "output"),
    "bridge": ("prerouting", "output"),
    "arp": ("prerouting", "input"),
}
"""In the family arp these numbers are the hooks input (0) and output (1)."""


class TraceStep(NamedTuple):
    """One step of a traced packet through the rules of one namespace.

    `kind` is `rule`, `policy` (the policy at the end of a base chain) or `return`. `handle` is the
    handle of the rule, 0 for a policy. `packet` identifies the packet within the namespace. `head`
    has the packet's network header and the first bytes of its transport header; the kernel reports
    it once for each base chain. `iif` and `oif` are link indexes.
    """

    family: str
    table: str
    chain: str
    handle: int
    kind: str
    verdict: str
    packet: int
    head: bytes
    iif: int
    oif: int


def port_from(first: int, which: int) -> list[Expression]:
    """Match a port of at least `first`: the source port (`which` is 0) or destination port (2)."""
    return transport(which, struct.pack(">H", first), op=_AT_LEAST)


def _arp() -> list[Expression]:
    """Match ARP frames; for a table of the bridge family."""
    load = expression("meta", be32(1, _REGISTER), be32(2, _META_PROTOCOL))
    return [load, compare(_ETH_P_ARP)]


def _mark() -> list[Expression]:
    store = expression("meta", be32(3, _REGISTER), be32(2, _META_NFTRACE))
    return [immediate(_REGISTER, b"\x01"), store]


class Tracer:
    """Trace of the ARP frames in a namespace, and of the packets that match one of `flows`.

    Close the tracer, or use it as a context manager. Its socket owns its tables, so the kernel
    removes the tables when the socket is closed. Raises `OSError` if the kernel refuses the tables.
    """

    def __init__(self, netns: NetNS, flows: Sequence[Sequence[Expression]], *, name: str) -> None:
        self.name = name
        self._events = Netlink(netns, protocol=NETLINK_NETFILTER)
        with ExitStack() as stack:
            stack.callback(self._events.close)
            self._events.join(_GROUP)
            self._nft = stack.enter_context(Nft(netns))  # its close removes the tables
            for family in _HOOKS:
                self._nft.apply(list(self._requests(Table(family, name), flows)))
            self._resources = stack.pop_all()

    def _requests(self, table: Table, flows: Sequence[Sequence[Expression]]) -> Iterator[Request]:
        yield add_table(table, owned=True)
        for hook in _HOOKS[table.family]:
            yield add_chain(table, hook, hook=hook, priority=_EARLIEST)
            if table.family == "arp":
                yield add_rule(table, hook, _mark())
                continue
            if table.family == "bridge":
                yield add_rule(table, hook, _arp(), _mark())
            for flow in flows:
                yield add_rule(table, hook, flow, _mark())

    def steps(self) -> list[TraceStep]:
        """Return the steps since the last request, except those of the tracer's own rules."""
        found = []
        for kind, body in self._events.notifications():
            if kind == _MSG_TRACE:
                step = _step(body)
                if step.table != self.name:
                    found.append(step)
        return found

    def close(self) -> None:
        """Remove the tables and close the sockets."""
        with self._resources:
            present = [table for table in self._nft.tables() if table.name == self.name]
            self._nft.apply([del_table(table) for table in present])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _step(body: bytes) -> TraceStep:
    found = dict(attributes(body, 4))
    kind = _TYPES.get(_number(found, _TYPE), "")
    if kind == "policy" and _POLICY in found:
        code = _number(found, _POLICY)
    else:
        given = dict(attributes(found.get(_VERDICT, b""))).get(1, b"")
        code = int.from_bytes(given, "big", signed=True)
    return TraceStep(
        family=_FAMILIES.get(body[0], str(body[0])),
        table=_text(found, _TABLE),
        chain=_text(found, _CHAIN),
        handle=_number(found, _HANDLE),
        kind=kind,
        verdict=_VERDICTS.get(code, str(code)),
        packet=_number(found, _ID),
        head=found.get(_NETWORK_HEADER, b"") + found.get(_TRANSPORT_HEADER, b""),
        iif=_number(found, _IIF),
        oif=_number(found, _OIF),
    )


def _number(found: dict[int, bytes], key: int) -> int:
    return int.from_bytes(found.get(key, b""), "big")


def _text(found: dict[int, bytes], key: int) -> str:
    return found.get(key, b"").rstrip(b"\0").decode(errors="replace")
