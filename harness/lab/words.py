"""A command line, word by word, for grammars that are no options."""

from __future__ import annotations

from collections.abc import Sequence


class UsageError(Exception):
    """The command line makes no sense; the message says where."""


class Words:
    """What is left of a command line."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)

    def __bool__(self) -> bool:
        return bool(self._words)

    def take(self, what: str) -> str:
        """The next word. Raises `UsageError` when there is none, naming `what` it should be."""
        if not self._words:
            raise UsageError(f"{what} is missing")
        return self._words.pop(0)

    def rest(self) -> list[str]:
        """All that is left."""
        left, self._words = self._words, []
        return left

    def skip(self, *words: str) -> bool:
        """Leave out the next word if it is one of `words`; whether it was."""
        if self._words and self._words[0] in words:
            del self._words[0]
            return True
        return False

    def choice(self, what: str, *, among: Sequence[str], default: str = "") -> str:
        """The one of `among` that the next word begins, as iproute2 lets one write `a` for `add`.

        The first that fits is meant. Raises `UsageError` when none does.
        """
        if not self._words and default:
            return default
        word = self.take(what)
        for name in among:
            if name.startswith(word):
                return name
        raise UsageError(f"{what} {word!r} is not among: {', '.join(among)}")

    def pairs(self, *keys: str) -> dict[str, str]:
        """Read `key value` pairs to the end. Raises `UsageError` for another key."""
        found = {}
        while self._words:
            key = self.take("a key")
            if key not in keys:
                raise UsageError(f"{key!r} is not among: {', '.join(keys)}")
            found[key] = self.take(f"the value of {key}")
        return found
