"""Names and addresses by which a leftover on the host shows its former container or network."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable


class OwnershipMarks:
    """Names and addresses that are typical of containers and networks: their marks.

    Marks are addresses, MACs, ids, interfaces and names.
    """

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}
        self._gone: set[str] = set()

    def know(self, name: str, marks: set[str]) -> None:
        """Set the marks of a container or network; marks that it no longer has count as removed."""
        self._gone |= self._of.get(name, set()) - marks
        self._of[name] = marks

    def forget_except(self, there: Collection[str]) -> set[str]:
        """Return removed marks that no other container or network has now, and forget them.

        The marks of all containers and networks except `there` count as removed.
        """
        for name in self._of.keys() - set(there):
            self._gone |= self._of.pop(name)
        gone = self._gone.difference(*self._of.values())
        self._gone = set()
        return gone


def borne(marks: Collection[str], things: Iterable[str]) -> list[str]:
    """Return the things in whose names one of the marks is a separate word."""
    if not marks:
        return []
    every = "|".join(map(re.escape, sorted(marks)))
    words = re.compile(rf"(?<![\w.:])(?:{every})(?![\w.]|:[\w:])")
    return [thing for thing in things if words.search(thing)]
