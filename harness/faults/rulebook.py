"""What the rules of a namespace do, whoever wrote them: enough to pick some and take them away."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from linux.netlink import attributes
from linux.nft import Nft, Rule, Table

_NAMES: Final = 16
_VERDICTS: Final = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}


class Entry(NamedTuple):
    """One rule, with what it does and the raw values that it compares with.

    `does` is `drop`, `accept`, `jump`, `return`, `reject`, `masq`, `nat` or `""`.
    """

    table: Table
    rule: Rule
    does: str
    data: bytes
    kinds: tuple[str, ...]

    def mentions(self, link: str) -> bool:
        """Whether it compares with an interface's name."""
        return link.encode().ljust(_NAMES, b"\0") in self.data


def entries(opened: Nft) -> list[Entry]:
    """Every rule of a namespace, table by table."""
    return [entry for table in opened.tables() for entry in _of(opened, table)]


def _of(opened: Nft, table: Table) -> Iterator[Entry]:
    for rule, expressions in opened.expressions(table):
        kinds, does = [], ""
        for _, element in attributes(expressions):
            parts = dict(attributes(element))
            name = parts[1].rstrip(b"\0").decode()
            kinds.append(name)
            if name in ("reject", "masq", "nat", "queue"):
                does = name
            elif name == "immediate":
                does = _verdict(parts.get(2, b"")) or does
        yield Entry(table, rule, does, expressions, tuple(kinds))


def _verdict(data: bytes) -> str:
    """What an immediate decides; empty where it only loads a value."""
    value = dict(attributes(dict(attributes(data)).get(2, b"")))
    if 2 not in value:
        return ""
    (code,) = struct.unpack(">i", dict(attributes(value[2]))[1])
    return _VERDICTS.get(code, "")
