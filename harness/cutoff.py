"""Whoever is cut off while something is made does not know whether it is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from harness.adapters.protocol import RuntimeRefused


class CutOff:
    """What may be there since Ctrl-C, a time-out or a crash came in the middle of its making."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def making(self, remove: Callable[[str], None], name: str) -> Iterator[None]:
        """The body has a runtime make something of that name, which `remove` removes.

        A refusal is the runtime's own answer: then there is nothing.
        """
        try:
            yield
        except RuntimeRefused:
            raise
        except BaseException:
            self._undo.append(partial(remove, name))
            raise

    def take_back(self) -> None:
        """Remove what is there of it."""
        while self._undo:
            with contextlib.suppress(RuntimeRefused):  # it was not made, after all
                self._undo.pop()()
