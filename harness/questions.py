"""From cells to questions: addresses for names, and which place must answer.

A cell whose target has no address, or whose name leads nowhere, ends before a packet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.addresses import Addresses
from harness.model import (
    BR0,
    BY_NAME,
    HOST,
    INTERNET,
    LOOPBACK,
    SELF,
    Cell,
    Family,
    Observation,
    Outcome,
)
from harness.probe.ledger import Question
from harness.probe.names import Lookup, Resolved, resolve
from linux.netns import NetNS


def questions(
    cells: Sequence[Cell],
    spaces: Mapping[str, NetNS],
    addresses: Addresses,
    resolv_conf: Callable[[str], str],
) -> tuple[dict[Cell, Observation], list[Question]]:
    """The cells that end before a packet, and the questions to ask for the others.

    `spaces` are where everybody asks and witnesses, by name; `resolv_conf` tells what
    somebody's says. Names are asked for with real queries.
    """
    ended: dict[Cell, Observation] = {}
    found: list[Question] = []
    named = _look_up([cell for cell in cells if cell.target == BY_NAME], spaces, resolv_conf)
    for cell in cells:
        if cell.target == BY_NAME:
            resolved = named[cell.source, cell.family]
            address, outcome, reason = resolved.address, Outcome.NO_NAME, resolved.reason
        else:
            address = addresses.of(cell)
            outcome, reason = Outcome.NO_ROUTE, f"{cell.target} has no IPv{cell.family} address"
        if address is None:
            ended[cell] = Observation(outcome, detail=reason)
        else:
            found.append(Question(cell, spaces[cell.source], address, spaces[witness(cell)]))
    return ended, found


def _look_up(
    cells: Sequence[Cell], spaces: Mapping[str, NetNS], resolv_conf: Callable[[str], str]
) -> dict[tuple[str, Family], Resolved]:
    keys = list(dict.fromkeys((cell.source, cell.family) for cell in cells))
    told = {source: resolv_conf(source) for source, _ in keys}
    lookups = [Lookup(spaces[source], told[source], BY_NAME, family) for source, family in keys]
    control = Lookup(spaces[INTERNET], resolv_conf(INTERNET), BY_NAME, 4)
    return dict(zip(keys, resolve(lookups, control=control), strict=True))


def witness(cell: Cell) -> str:
    """The name of the place that must answer."""
    special = {SELF: cell.source, LOOPBACK: cell.source, BR0: HOST, BY_NAME: INTERNET}
    return special.get(cell.target, cell.target)
