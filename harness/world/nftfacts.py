"""An nft ruleset put into words, without handles and without what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from harness.world.dumps import Messages, Ruleset
from linux.netlink import attributes
from linux.nft import comment_of

_FAMILIES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_COUNTING: Final = frozenset({"counter", "quota", "last", "connlimit"})
"""Expressions whose data moves with packets."""
_EXPRESSIONS: Final = 4
_LEFT_OUT: Final = {
    "table": frozenset({3, 4}),  # use, handle
    "chain": frozenset({2, 6, 8}),  # handle, use, counters
    "rule": frozenset({3, _EXPRESSIONS, 6}),  # handle, told apart, position
    "set": frozenset({9, 16, 17, 18, 20}),  # size, handle, counters, count
    "object": frozenset({4, 5, 6}),  # what it has counted, use, handle
    "flowtable": frozenset({4, 5}),  # use, handle
}


def ruleset(found: Ruleset) -> Iterator[tuple[str, dict[str, str]]]:
    """Each table, chain, rule, set, element, object and flowtable by name.

    A rule goes by its chain and its comment, and its place in the chain is known about it.
    """
    yield from _plain("table", found.tables, 1)
    yield from _plain("chain", found.chains, 1, 3)
    places: Counter[tuple[int, bytes, bytes]] = Counter()
    for answer in found.rules:
        parts = dict(attributes(answer, 4))
        chain = (answer[0], parts[1], parts[2])
        places[chain] += 1
        known = _known("rule", parts)
        known["place"] = str(places[chain])
        known["expressions"] = _expressions(parts.get(_EXPRESSIONS, b""))
        comment = comment_of(parts.get(7, b""))
        yield f"nft rule {_where(answer, parts, 1, 2)} {comment}".rstrip(), known
    yield from _plain("set", found.sets, 1, 2)
    for item, answers in found.elements:
        name = _where(item, dict(attributes(item, 4)), 1, 2)
        for answer in answers:
            for _, element in attributes(dict(attributes(answer, 4)).get(3, b"")):
                parts = dict(attributes(element))
                known = {f"attribute {key}": parts[key].hex() for key in (2, 3) if key in parts}
                yield f"nft element {name} {parts.get(1, b'').hex()}", known
    yield from _plain("object", found.objects, 1, 2)
    yield from _plain("flowtable", found.flowtables, 1, 2)


def _plain(what: str, messages: Messages, *named: int) -> Iterator[tuple[str, dict[str, str]]]:
    for answer in messages:
        parts = dict(attributes(answer, 4))
        yield f"nft {what} {_where(answer, parts, *named)}", _known(what, parts)


def _where(answer: bytes, parts: dict[int, bytes], *named: int) -> str:
    path = [parts[key].rstrip(b"\0").decode(errors="replace") for key in named]
    return " ".join([_FAMILIES.get(answer[0], str(answer[0])), *path])


def _known(what: str, parts: dict[int, bytes]) -> dict[str, str]:
    left_out = _LEFT_OUT[what]
    return {f"attribute {key}": value.hex() for key, value in parts.items() if key not in left_out}


def _expressions(value: bytes) -> str:
    told = []
    for _, element in attributes(value):
        parts = dict(attributes(element))
        name = parts[1].rstrip(b"\0").decode(errors="replace")
        told.append(name if name in _COUNTING else f"{name} {parts.get(2, b'').hex()}")
    return ", ".join(told)
