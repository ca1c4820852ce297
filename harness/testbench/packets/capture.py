"""Captures of frames by taps in any namespaces, and expectations about the frames.

All taps listen before the body of the `with` runs. State expectations in the body or after it:

```python
with Tap(internet, "eth0", owner="internet") as tap:
    with Capture([tap]) as wire:
        ...
    wire.expect_one(IP(src="198.51.100.7") / UDP(dport=4242))
    wire.expect_none(IP(src=IPv4Network("172.17.0.0/16")))
```
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from harness.testbench.packets import pcapng
from harness.testbench.packets.packet_ring import SLOT, Frame, Ring
from linux.netns import NetNS

if TYPE_CHECKING:
    from scapy.packet import Packet

    from harness.testbench.netns_view import NetnsView

SLOTS: Final = 1024
"""Number of frames that a tap stores until they are collected."""


class CaptureLost(Exception):
    """More frames arrived than a tap could store, so the capture proves nothing."""


class Tap:
    """A packet socket on one interface of a namespace, or without `ifname` on all of them.

    `owner` is the namespace's name in messages. A tap can serve several captures, one after the
    other, and does not change the interface. A tap on all interfaces sees a frame once at each
    interface that the frame passes, for example at two ports of a bridge. Raises `OSError`, which
    names the namespace, if the tap cannot be opened.
    """

    def __init__(
        self, netns: NetNS, ifname: str = "", *, owner: str = "", slots: int = SLOTS
    ) -> None:
        self._netns, self._owner = netns, owner
        self.ifname = ifname
        self.where = self._name(ifname or "*")
        """Name of the interface: `internet/eth0`, or `internet/*` for all of them."""
        self.taken = False
        """True during a capture."""
        try:
            self._ring = Ring(netns, ifname, slots)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot capture at {self.where}: {error.strerror}. The interface must be there "
                "already, and the caller needs CAP_NET_RAW in its namespace",
            ) from error

    def begin(self) -> None:
        """Discard earlier frames and keep frames from now on."""
        self._ring.discard()

    def collect(self) -> tuple[list[Frame], int]:
        """Return the frames since the last call of this method, and the number of lost frames."""
        name = cache(lambda index: self._name(self.ifname or self._look_up(index)))
        frames = list(self._ring.read(name))
        return frames, self._ring.lost()

    def covers(self, where: str) -> bool:
        """Return True if the tap covers the interface that `where` names."""
        return where == self.where or (not self.ifname and where.startswith(self._name("")))

    def _name(self, ifname: str) -> str:
        return f"{self._owner}/{ifname}" if self._owner else ifname

    def _look_up(self, index: int) -> str:
        try:
            with self._netns.entered():
                return socket.if_indextoname(index)
        except OSError:
            return f"if{index}"  # the interface no longer exists

    def close(self) -> None:
        """Close the packet socket."""
        self._ring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Capture:
    """Frames that the taps saw while the body of the `with` ran, ordered by time.

    A frame counts once at each tap on its path. The argument `at` of the methods restricts them to
    one interface, named as in `Frame.where`. Frames are stored whole up to about
    `harness.testbench.packets.packet_ring.SLOT` bytes. Raises `CaptureLost` if a tap overflowed,
    and `RuntimeError` if another capture is using one of the taps.
    """

    def __init__(self, taps: Sequence[Tap]) -> None:
        self._taps = tuple(taps)
        self._running = False
        self._frames: list[Frame] = []
        self._lost: Counter[str] = Counter()

    def __enter__(self) -> Self:
        if taken := [tap.where for tap in self._taps if tap.taken]:
            raise RuntimeError(
                f"another capture is active at {', '.join(taken)}, and each would take frames "
                "from the other. Open a separate tap for this one"
            )
        for tap in self._taps:
            tap.taken = True
            tap.begin()
        self._running = True
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.drain()
        finally:
            self._running = False
            for tap in self._taps:
                tap.taken = False

    def drain(self) -> None:
        """Collect the frames that the taps have seen so far, without waiting for more."""
        for tap in self._taps if self._running else ():
            frames, lost = tap.collect()
            self._frames += frames
            if lost:
                self._lost[tap.where] += lost
        self._frames.sort(key=lambda frame: frame.at)
        if self._lost:
            where_lost = ", ".join(f"{count} at {where}" for where, count in self._lost.items())
            raise CaptureLost(
                f"frames arrived faster than they were collected: lost {where_lost}. Call drain() "
                f"in between, or give the tap more slots (of {SLOT} bytes each)"
            )

    def frames(self, *, at: str = "") -> tuple[Frame, ...]:
        """Return all frames captured so far, or those at one interface.

        Raises `ValueError` if no tap covers the interface `at`.
        """
        if at and not any(tap.covers(at) for tap in self._taps):
            taps = ", ".join(tap.where for tap in self._taps)
            raise ValueError(f"no tap captures at {at!r}, only at {taps}")
        self.drain()
        return tuple(frame for frame in self._frames if at in ("", frame.where))

    @property
    def kept(self) -> tuple[Frame, ...]:
        """The captured frames, even if others were lost."""
        with contextlib.suppress(CaptureLost):
            self.drain()
        return tuple(self._frames)

    def matching(self, template: Packet, *, at: str = "") -> tuple[Frame, ...]:
        """Return the frames that match `template`, as `packets.expect` defines it."""
        from harness.testbench.packets import expect  # scapy takes a while to import

        return tuple(expect.like(template, self.frames(at=at)))

    def expect_one(self, template: Packet, *, at: str = "") -> Frame:
        """Return the frame that matches `template`.

        Raises `AssertionError` unless exactly one frame matches.
        """
        from harness.testbench.packets import expect

        return expect.one(self.frames(at=at), template)

    def expect_one_each(self, template: Packet, *, to: Packet, at: str = "") -> None:
        """Assert that at least one frame matches `template`, but no more than match `to`.

        `to` matches the requests to which the frames reply. The kernel may repeat a SYN after a
        second, and then also the error that replies to the SYN.
        """
        from harness.testbench.packets import expect

        expect.one_each(self.frames(at=at), template, to=to)

    def expect_none(self, *templates: Packet, at: str = "") -> None:
        """Assert that no frame matches any of the templates."""
        from harness.testbench.packets import expect

        expect.none(self.frames(at=at), *templates)

    def expect_only(self, *templates: Packet, at: str = "") -> None:
        """Assert that each template matches a frame, and that no other frame was captured.

        Housekeeping of the link is ignored: ARP, neighbour discovery and multicast reports (IGMP,
        MLD).
        """
        from harness.testbench.packets import expect

        expect.only(self.frames(at=at), *templates)

    def write(
        self, path: Path, *, comment: str = "", comments: Mapping[Frame, str] | None = None
    ) -> None:
        """Write all captured frames as a pcapng file, even if others were lost.

        The file also names the interfaces at which no frame was captured.
        """
        taps = [tap.where for tap in self._taps if tap.ifname]
        pcapng.write(path, self.kept, interfaces=taps, comment=comment, comments=comments)


class TapPool:
    """Taps by namespace and link, opened at their first use and closed together.

    Opening a tap takes about 10 ms and closing it up to 25 ms (see `Ring`). A capture on open taps
    takes microseconds. Taps keep their namespaces alive, so close them before the namespaces end.
    """

    def __init__(self) -> None:
        self._taps: dict[tuple[tuple[int, int], str], Tap] = {}
        self._resources = contextlib.ExitStack()

    def tap(self, view: NetnsView, link: str = "eth0") -> Tap:
        """Return the tap on a link of a namespace, or on all of its links if `link` is empty."""
        key = (view.identity, link)
        if key not in self._taps:
            space = self._resources.enter_context(view.open())
            tap = Tap(space, link, owner=view.name)
            self._taps[key] = self._resources.enter_context(tap)
        return self._taps[key]

    @contextlib.contextmanager
    def capture(self, *views: NetnsView, link: str = "eth0") -> Iterator[Capture]:
        """Capture every frame that passes `link` in one of the namespaces while the body runs."""
        with Capture([self.tap(view, link) for view in views]) as wire:
            yield wire

    def close(self) -> None:
        """Close all taps and their namespaces."""
        self._taps.clear()
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
