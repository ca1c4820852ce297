"""What nftables has decided about the probe's packets, in every namespace on the path."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from harness.autopsy.sightings import PORTS, Ruling, Seen, of_packet
from harness.probe.wire import MAGIC
from linux import nft
from linux.netns import NetNS
from linux.nft import Expression, Nft, Table
from linux.nftrace import Step, Tracer, port_from, transport

TABLE: Final = "netmodes-autopsy"
"""The tracers' tables. They are there while a probe is replayed, and no longer."""
_ICMP_HEADER: Final = 8
_FINAL: Final = frozenset({"drop", "stolen", "queue"})
_ICMP_ERRORS: Final = {"icmp": (3, 11, 12), "icmpv6": (1, 2, 3, 4, 135, 136)}
"""Errors, and of ICMPv6 the looking for neighbours."""


def _flows() -> Iterator[list[Expression]]:
    for protocol in ("udp", "icmp", "icmpv6"):
        yield [*nft.l4proto(protocol), *transport(_ICMP_HEADER, MAGIC)]
    for which in (0, 2):
        yield [*nft.l4proto("tcp"), *port_from(PORTS, which)]
        yield [*nft.l4proto("udp"), *transport(which, (53).to_bytes(2, "big"))]
    for protocol, kinds in _ICMP_ERRORS.items():
        for kind in kinds:
            yield [*nft.l4proto(protocol), *nft.icmp_type(kind)]


class Tracing:
    """Tracers in several namespaces, open until they are closed."""

    def __init__(self, spaces: Mapping[str, NetNS]) -> None:
        self._spaces: dict[str, NetNS] = {}
        self._tracers: dict[str, Tracer] = {}
        flows: Sequence[list[Expression]] = list(_flows())
        with contextlib.ExitStack() as stack:
            for name, space in spaces.items():
                if space.id not in {item.id for item in self._spaces.values()}:
                    self._tracers[name] = stack.enter_context(Tracer(space, flows, name=TABLE))
                    self._spaces[name] = space
            self._resources = stack.pop_all()

    def begin(self) -> None:
        """Forget what was told before."""
        for tracer in self._tracers.values():
            tracer.steps()

    def rulings(self, *, names: bool = False) -> list[Ruling]:
        """Where packets have ended since the last time; with `names` DNS is of interest."""
        found = []
        for place, tracer in self._tracers.items():
            heads: dict[int, bytes] = {}
            for step in tracer.steps():
                if step.head:
                    heads[step.packet] = step.head
                if step.verdict in _FINAL:
                    seen = _seen(heads.get(step.packet, b""), names=names)
                    found.append(_ruling(place, self._spaces[place], step, seen))
        return found

    def close(self) -> None:
        """Take every tracer away."""
        self._resources.close()


def _seen(head: bytes, *, names: bool) -> Seen | None:
    try:
        return of_packet(head, names=names) if head else None
    except (struct.error, IndexError, ValueError):
        return None


def _ruling(place: str, space: NetNS, step: Step, seen: Seen | None) -> Ruling:
    number, comment, rejects = None, "", False
    if step.kind == "rule":
        with Nft(space) as opened:
            rules = opened.expressions(Table(step.family, step.table))
        chain = [(rule, does) for rule, does in rules if rule.chain == step.chain]
        for place_in_chain, (rule, does) in enumerate(chain, 1):
            if rule.handle == step.handle:
                number, comment = place_in_chain, rule.comment
                rejects = b"reject\0" in does or b"REJECT\0" in does
    return Ruling(
        place,
        f"{step.family} {step.table}",
        step.chain,
        number,
        step.handle,
        comment,
        rejects,
        seen,
    )
