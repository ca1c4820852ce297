"""Taps on every interface of the namespaces on the path, opened and closed side by side.

Each waits until no processor handles a packet any more (`harness.packets.ring`), and all
of them can wait for the same moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from harness.packets.capture import Tap
from linux.netns import NetNS

_SLOTS: Final = 256
"""One probe and what it causes: a few dozen frames at most."""
_THREADS: Final = 16


@contextlib.contextmanager
def tapped(spaces: Mapping[str, NetNS]) -> Iterator[list[Tap]]:
    """One tap for each namespace, by the name of its place; two names of one get one tap."""
    names: dict[tuple[int, int], str] = {}
    for name, space in spaces.items():
        names.setdefault(space.id, name)

    def open_one(name: str) -> Tap:
        return Tap(spaces[name], "", place=name, slots=_SLOTS)

    with ThreadPoolExecutor(min(_THREADS, max(1, len(names)))) as pool:
        opening = [pool.submit(open_one, name) for name in names.values()]
        taps = [done.result() for done in opening if done.exception() is None]
        try:
            for done in opening:
                done.result()
            yield taps
        finally:
            list(pool.map(_close, taps))


def _close(tap: Tap) -> None:
    tap.close()
