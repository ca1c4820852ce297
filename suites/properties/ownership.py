"""Names and addresses that show to which container or network a host object belongs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable


class OwnershipMarks:
    """Addresses, MACs, ids, interfaces and names of containers and networks."""

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}
        self._gone: set[str] = set()

    def know(self, name: str, marks: set[str]) -> None:
        """Set the marks of a name; its earlier marks count as removed."""
        self._gone |= self._of.get(name, set()) - marks
        self._of[name] = marks

    def forget_except(self, there: Collection[str]) -> set[str]:
        """Return removed marks, without those that other names have now.

        The marks of all names except `there` count as removed.
        """
        for name in self._of.keys() - set(there):
            self._gone |= self._of.pop(name)
        gone = self._gone.difference(*self._of.values())
        self._gone = set()
        return gone


def borne(marks: Collection[str], things: Iterable[str]) -> list[str]:
    """Return the things whose names have one of the marks as a separate word."""
    if not marks:
        return []
    every = "|".join(map(re.escape, sorted(marks)))
    words = re.compile(rf"(?<![\w.:])(?:{every})(?![\w.]|:[\w:])")
    return [thing for thing in things if words.search(thing)]
