"""What is expected of captured frames, and what a disappointed expectation says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from scapy.layers.inet import IP
from scapy.packet import Packet

from harness.packets.frame import Frame
from harness.packets.match import Difference, describe, differences, distance

SHOWN: Final = 6
"""How many frames a failure shows."""

_HOUSEKEEPING: Final = ("ARP", "ICMPv6ND_", "ICMPv6ML")
_IGMP: Final = 2  # the protocol number; scapy knows it as a contribution only


def like(template: Packet, frames: Iterable[Frame]) -> list[Frame]:
    """The frames that `template` describes; see `harness.packets.match`."""
    return [frame for frame in frames if not _differences(template, frame)]


def one(frames: Sequence[Frame], template: Packet) -> Frame:
    """Exactly one of the frames is like `template`: it. `AssertionError` otherwise."""
    found = like(template, frames)
    if not found:
        raise AssertionError(f"no frame is like {describe(template)}; {_nearest(frames, template)}")
    if len(found) > 1:
        raise AssertionError(
            f"{len(found)} frames are like {describe(template)}, not one:{_listed(found)}"
        )
    return found[0]


def one_each(frames: Sequence[Frame], template: Packet, *, to: Packet) -> None:
    """A frame is like `template`, and no more are than there are like `to`, or `AssertionError`."""
    found, asked = like(template, frames), like(to, frames)
    if len(found) > max(1, len(asked)):
        raise AssertionError(
            f"{len(found)} frames are like {describe(template)}, though {len(asked)} were sent:"
            f"{_listed(found)}"
        )
    if not found:
        one(frames, template)


def none(frames: Sequence[Frame], *templates: Packet) -> None:
    """No frame is like any of the templates. `AssertionError` lists those that are."""
    for template in templates:
        if found := like(template, frames):
            raise AssertionError(
                f"no frame must be like {describe(template)}, yet {len(found)} are:{_listed(found)}"
            )


def only(frames: Sequence[Frame], *templates: Packet) -> None:
    """Each of the templates is met by a frame, and each frame is like one of them.

    What keeps a link going, ARP, neighbour discovery and reports of multicast
    listeners (IGMP, MLD), comes at times of its own and is no offence.
    """
    found = [like(template, frames) for template in templates]
    for template, matched in zip(templates, found, strict=True):
        if not matched:
            raise AssertionError(
                f"no frame is like {describe(template)}; {_nearest(frames, template)}"
            )
    known = {id(frame) for matched in found for frame in matched}
    others = [frame for frame in frames if id(frame) not in known and not _housekeeping(frame)]
    if others:
        wanted = " or ".join(describe(template) for template in templates)
        raise AssertionError(f"besides {wanted} there were {len(others)} others:{_listed(others)}")


def _differences(template: Packet, frame: Frame) -> tuple[Difference, ...]:
    return differences(template, frame.packet, unfinished_checksum=frame.unfinished_checksum)


def _housekeeping(frame: Frame) -> bool:
    return any(
        type(layer).__name__.startswith(_HOUSEKEEPING)
        or (type(layer) is IP and layer.proto == _IGMP)
        for layer in _layers(frame)
    )


def _layers(frame: Frame) -> Iterable[Packet]:
    layers: Iterable[Packet] = frame.packet.iterpayloads()
    return layers


def _nearest(frames: Sequence[Frame], template: Packet) -> str:
    if not frames:
        return "nothing at all was captured"
    ranked = sorted(
        ((_differences(template, frame), frame) for frame in frames),
        key=lambda pair: distance(pair[0]),
    )
    lines = [
        f"\n  {frame}" + "".join(f"\n      {difference}" for difference in found)
        for found, frame in ranked[:SHOWN]
    ]
    return f"of {len(frames)} captured these come nearest:{''.join(lines)}"


def _listed(frames: Sequence[Frame]) -> str:
    more = f"\n  … and {len(frames) - SHOWN} more" if len(frames) > SHOWN else ""
    return "".join(f"\n  {frame}" for frame in frames[:SHOWN]) + more
