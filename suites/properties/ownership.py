"""What tells whose something in the host is, by what it is called."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable


class OwnershipMarks:
    """The marks that things have: addresses, MACs, ids, interfaces, names."""

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}
        self._gone: set[str] = set()

    def know(self, name: str, marks: set[str]) -> None:
        """From now on it has these; what it had before is gone."""
        self._gone |= self._of.get(name, set()) - marks
        self._of[name] = marks

    def forget_all_but(self, there: Collection[str]) -> set[str]:
        """The marks of who is gone since the last time, but for what another has by now."""
        for name in self._of.keys() - set(there):
            self._gone |= self._of.pop(name)
        gone = self._gone.difference(*self._of.values())
        self._gone = set()
        return gone


def borne(marks: Collection[str], things: Iterable[str]) -> list[str]:
    """The things that have one of the marks in their name, as a word of its own."""
    if not marks:
        return []
    every = "|".join(map(re.escape, sorted(marks)))
    words = re.compile(rf"(?<![\w.:])(?:{every})(?![\w.]|:[\w:])")
    return [thing for thing in things if words.search(thing)]
