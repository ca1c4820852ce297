"""Taps that stay open for many captures.

Opening a tap takes about 10 ms and closing it up to 25 (`harness.testbench.packets.packet_ring`);
a capture on open ones takes microseconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Self

from harness.testbench.netns_view import NetnsView
from harness.testbench.packets.capture import Capture, Tap


class TapPool:
    """Taps by place and link, opened at their first use, closed together.

    They keep the namespaces of their places alive: close them before those end.
    """

    def __init__(self) -> None:
        self._taps: dict[tuple[tuple[int, int], str], Tap] = {}
        self._resources = contextlib.ExitStack()

    def tap(self, place: NetnsView, link: str = "eth0") -> Tap:
        """Return the tap on one link of a place, or on all of its links when `link` is empty."""
        key = (place.identity, link)
        if key not in self._taps:
            space = self._resources.enter_context(place.open())
            tap = Tap(space, link, place=place.name)
            self._taps[key] = self._resources.enter_context(tap)
        return self._taps[key]

    @contextlib.contextmanager
    def capture(self, *places: NetnsView, link: str = "eth0") -> Iterator[Capture]:
        """Capture every frame that passes these links of some places while the body runs."""
        with Capture([self.tap(place, link) for place in places]) as wire:
            yield wire

    def close(self) -> None:
        """Stop listening everywhere."""
        self._taps.clear()
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
