"""A capture: taps in any namespaces, and what is expected of what they saw.

Every tap listens before the body of the `with` runs, so nothing that the body
causes is missed. What is expected can be said inside the body or after it:

```python
with Tap(internet, "eth0", place="internet") as tap:
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from harness.testbench.packets import pcapng
from harness.testbench.packets.packet_ring import SLOT, Frame, FrameKind, Ring, has_ethernet_header
from linux.netns import NetNS

if TYPE_CHECKING:
    from scapy.packet import Packet

SLOTS: Final = 1024
"""How many frames a tap keeps until they are collected."""


class CaptureLost(Exception):
    """More frames came than a tap could keep: what was captured proves nothing."""


class Tap:
    """One place to listen: an interface of a namespace, or all of them without `ifname`.

    `place` is the namespace's name, for people. The tap is open from the start until
    it is closed. Both take a while (see `Ring`), so open a tap once and use it for
    many captures, one after the other. It changes nothing about the interface.
    Raises `OSError`, which names the place, when it cannot be opened.

    On all interfaces a frame that passes a bridge is seen on each one it passes.
    """

    def __init__(
        self, netns: NetNS, ifname: str = "", *, place: str = "", slots: int = SLOTS
    ) -> None:
        self._netns, self._place = netns, place
        self.ifname = ifname
        self.where = self._name(ifname or "*")
        """The interface in words: `internet/eth0`, or `internet/*` for all of them."""
        self.taken = False
        """Whether a capture is going on here."""
        try:
            self._ring = Ring(netns, ifname, slots)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot capture at {self.where}: {error.strerror}. The interface must be there "
                "already, and capturing takes CAP_NET_RAW in its namespace",
            ) from error

    def begin(self) -> None:
        """Forget what was seen before; what comes from now on is kept."""
        self._ring.discard()

    def collect(self) -> tuple[list[Frame], int]:
        """What came since the last time, and how many frames were lost because it was full."""
        names: dict[int, str] = {}
        frames = []
        for seen in self._ring.read():
            if seen.interface not in names:
                names[seen.interface] = self._name(self.ifname or self._look_up(seen.interface))
            frames.append(
                Frame(
                    names[seen.interface],
                    seen.at,
                    FrameKind(seen.kind),
                    seen.length,
                    seen.data,
                    seen.unfinished_checksum,
                    has_ethernet_header(seen.hardware),
                )
            )
        return frames, self._ring.lost()

    def covers(self, where: str) -> bool:
        """Whether the interface called `where` is listened to here."""
        return where == self.where or (not self.ifname and where.startswith(self._name("")))

    def _name(self, ifname: str) -> str:
        return f"{self._place}/{ifname}" if self._place else ifname

    def _look_up(self, index: int) -> str:
        try:
            with self._netns.entered():
                return socket.if_indextoname(index)
        except OSError:
            return f"if{index}"  # it is gone

    def close(self) -> None:
        """Stop listening."""
        self._ring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Capture:
    """What the taps saw while the body of the `with` ran, in the order in which it happened.

    A frame passes every tap on its way and counts once at each: `at` narrows an
    expectation to one interface, written as in `Frame.where`. Frames are kept
    whole up to about `harness.testbench.packets.packet_ring.SLOT` bytes. Raises `CaptureLost` when
    a tap overflowed, and `RuntimeError` when another capture uses a tap.
    """

    def __init__(self, taps: Sequence[Tap]) -> None:
        self._taps = tuple(taps)
        self._running = False
        self._frames: list[Frame] = []
        self._lost: Counter[str] = Counter()

    def __enter__(self) -> Self:
        if taken := [tap.where for tap in self._taps if tap.taken]:
            raise RuntimeError(
                f"another capture is going on at {', '.join(taken)}, and each would take frames "
                "from the other. Open a tap of its own for this one"
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
        """Collect what the taps have seen so far, without waiting for more."""
        for tap in self._taps if self._running else ():
            frames, lost = tap.collect()
            self._frames += frames
            if lost:
                self._lost[tap.where] += lost
        self._frames.sort(key=lambda frame: frame.at)
        if self._lost:
            told = ", ".join(f"{count} at {where}" for where, count in self._lost.items())
            raise CaptureLost(
                f"frames came faster than they were collected: lost {told}. Call drain() "
                f"in between, or give the tap more slots (of {SLOT} bytes each)"
            )

    def frames(self, *, at: str = "") -> tuple[Frame, ...]:
        """Everything captured so far. `ValueError` when no tap is `at` that interface."""
        if at and not any(tap.covers(at) for tap in self._taps):
            taps = ", ".join(tap.where for tap in self._taps)
            raise ValueError(f"nothing is captured at {at!r}, only at {taps}")
        self.drain()
        return tuple(frame for frame in self._frames if at in ("", frame.where))

    @property
    def kept(self) -> tuple[Frame, ...]:
        """What is there of it, lost frames or not: for who wants to know what it was like."""
        with contextlib.suppress(CaptureLost):
            self.drain()
        return tuple(self._frames)

    def matching(self, template: Packet, *, at: str = "") -> tuple[Frame, ...]:
        """The frames that are like `template`; `harness.testbench.packets.expect` tells what that means."""
        from harness.testbench.packets import expect  # scapy takes a while to import

        return tuple(expect.like(template, self.frames(at=at)))

    def expect_one(self, template: Packet, *, at: str = "") -> Frame:
        """Exactly one frame is like `template`: it. `AssertionError` otherwise."""
        from harness.testbench.packets import expect

        return expect.one(self.frames(at=at), template)

    def expect_one_each(self, template: Packet, *, to: Packet, at: str = "") -> None:
        """One frame is like `template` for each that is like `to`, and there is one.

        A SYN that nobody accepts goes again after a second, and is told of again.
        """
        from harness.testbench.packets import expect

        expect.one_each(self.frames(at=at), template, to=to)

    def expect_none(self, *templates: Packet, at: str = "") -> None:
        """No frame is like any of the templates. `AssertionError` lists those that are."""
        from harness.testbench.packets import expect

        expect.none(self.frames(at=at), *templates)

    def expect_only(self, *templates: Packet, at: str = "") -> None:
        """Each template is met, and nothing else was seen but what keeps a link going.

        That is ARP, neighbour discovery and multicast listener reports.
        """
        from harness.testbench.packets import expect

        expect.only(self.frames(at=at), *templates)

    def write(
        self, path: Path, *, comment: str = "", comments: Mapping[Frame, str] | None = None
    ) -> None:
        """Keep everything as a pcapng file, taps that saw nothing and lost frames or not."""
        with contextlib.suppress(CaptureLost):
            self.drain()
        taps = [tap.where for tap in self._taps if tap.ifname]
        pcapng.write(path, self._frames, interfaces=taps, comment=comment, comments=comments)
