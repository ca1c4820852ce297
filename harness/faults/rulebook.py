"""What the rules of a namespace do, whoever wrote them: enough to pick some and take them away."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from linux.netlink import attributes
from linux.nft import Nft, Rule, Table

_WAYS: Final = {struct.pack(">I", 6): "in", struct.pack(">I", 7): "out"}
_VERDICTS: Final = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}


class Entry(NamedTuple):
    """One rule, with what it does and the raw values that it compares with.

    `does` is `drop`, `accept`, `jump`, `return`, `reject`, `masq`, `nat` or `""`. `links` are
    the interfaces that it compares with, as `("in", "eth0")` or `("out", "docker0")`.
    """

    table: Table
    rule: Rule
    does: str
    kinds: tuple[str, ...]
    links: tuple[tuple[str, str], ...]

    @property
    def refuses(self) -> bool:
        """Whether it drops or rejects."""
        return self.does in ("drop", "reject")


def entries(opened: Nft) -> list[Entry]:
    """Every rule of a namespace, table by table."""
    return [entry for table in opened.tables() for entry in _of(opened, table)]


def _of(opened: Nft, table: Table) -> Iterator[Entry]:
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
        yield Entry(table, rule, does, tuple(kinds), tuple(links))


def _compared(data: bytes) -> str:
    """The name that a comparison is with."""
    value = dict(attributes(dict(attributes(data)).get(3, b""))).get(1, b"")
    return value.rstrip(b"\0").decode(errors="replace")


def _verdict(data: bytes) -> str:
    """What an immediate decides; empty where it only loads a value."""
    value = dict(attributes(dict(attributes(data)).get(2, b"")))
    if 2 not in value:
        return ""
    (code,) = struct.unpack(">i", dict(attributes(value[2]))[1])
    return _VERDICTS.get(code, "")
