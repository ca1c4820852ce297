"""Expectations about captured frames, and their failure messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import zip_longest
from typing import Any, Final

from scapy.base_classes import Net
from scapy.layers.inet import IP
from scapy.packet import Packet, Raw

from harness.testbench.packets.packet_ring import Frame

SHOWN: Final = 6
"""Number of frames that a failure message shows."""

_HOUSEKEEPING: Final = ("ARP", "ICMPv6ND_", "ICMPv6ML")
_IGMP: Final = 2  # the protocol number; scapy has it only in a contribution


def like(template: Packet, frames: Iterable[Frame]) -> list[Frame]:
    """Return the frames that match `template`."""
    return [frame for frame in frames if not _differences(template, frame)]


def one(frames: Sequence[Frame], template: Packet) -> Frame:
    """Return the frame that matches `template`; raise `AssertionError` unless exactly one does."""
    found = like(template, frames)
    if not found:
        raise AssertionError(f"no frame matches {describe(template)}; {_nearest(frames, template)}")
    if len(found) > 1:
        raise AssertionError(
            f"{len(found)} frames match {describe(template)}, not one:{_listed(found)}"
        )
    return found[0]


def one_each(frames: Sequence[Frame], template: Packet, *, to: Packet) -> None:
    """Assert that at least one frame matches `template`, but no more than match `to`."""
    found, sent = like(template, frames), like(to, frames)
    if len(found) > max(1, len(sent)):
        raise AssertionError(
            f"{len(found)} frames match {describe(template)}, but {len(sent)} were sent:"
            f"{_listed(found)}"
        )
    if not found:
        one(frames, template)


def none(frames: Sequence[Frame], *templates: Packet) -> None:
    """Assert that no frame matches any of the templates."""
    for template in templates:
        if found := like(template, frames):
            raise AssertionError(
                f"{len(found)} frames match {describe(template)}, and none should:{_listed(found)}"
            )


def only(frames: Sequence[Frame], *templates: Packet) -> None:
    """Assert that each template matches a frame, and that each frame matches a template.

    Housekeeping of the link arrives at any time and is ignored: ARP, neighbour discovery and
    multicast reports (IGMP, MLD).
    """
    found = [like(template, frames) for template in templates]
    for template, matched in zip(templates, found, strict=True):
        if not matched:
            raise AssertionError(
                f"no frame matches {describe(template)}; {_nearest(frames, template)}"
            )
    known = {id(frame) for matched in found for frame in matched}
    others = [frame for frame in frames if id(frame) not in known and not _housekeeping(frame)]
    if others:
        wanted = " or ".join(describe(template) for template in templates)
        raise AssertionError(f"{len(others)} frames do not match {wanted}:{_listed(others)}")


def _differences(template: Packet, frame: Frame) -> tuple[PacketDifference, ...]:
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
        return "no frame was captured"
    ranked = sorted(
        ((_differences(template, frame), frame) for frame in frames),
        key=lambda pair: distance(pair[0]),
    )
    lines = [
        f"\n  {frame}" + "".join(f"\n      {difference}" for difference in found)
        for found, frame in ranked[:SHOWN]
    ]
    return f"the nearest of {len(frames)} captured:{''.join(lines)}"


def _listed(frames: Sequence[Frame]) -> str:
    more = f"\n  … and {len(frames) - SHOWN} more" if len(frames) > SHOWN else ""
    return "".join(f"\n  {frame}" for frame in frames[:SHOWN]) + more


_CHECKSUMS: Final = frozenset({"chksum", "cksum"})


@dataclass(frozen=True, slots=True)
class PacketDifference:
    """A field that differs between frame and template; `field` is empty if a layer is missing."""

    layer: str
    field: str = ""
    wanted: object = None
    found: object = None

    def __str__(self) -> str:
        if not self.field:
            return f"the frame has no {self.layer} layer"
        return f"{self.layer}.{self.field} is {self.found}, not {self.wanted}"


def differences(
    template: Packet, packet: Packet, *, unfinished_checksum: bool = False
) -> tuple[PacketDifference, ...]:
    """Return the differences between `packet` and `template`, at the place where they are fewest.

    The result is empty if the packet matches. With `unfinished_checksum` the checksums above IP are
    not compared: a network card would have filled them in.
    """
    wanted = list(template.iterpayloads())
    present = list(packet.iterpayloads())
    # A template begins with a layer of exactly that kind: a quoted IPerror is not an IP layer.
    starts = [n for n, layer in enumerate(present) if type(layer) is type(wanted[0])] or [0]
    found = (
        tuple(_compare(wanted, present[start:], unfinished_checksum=unfinished_checksum))
        for start in starts
    )
    return min(found, key=distance)


def distance(found: Sequence[PacketDifference]) -> tuple[int, int]:
    """Return the weight of the differences: one missing layer weighs more than all fields."""
    return sum(not difference.field for difference in found), len(found)


def describe(template: Packet) -> str:
    """Return a template as text in scapy's notation: `IP(src=192.0.2.1) / UDP(dport=53)`."""
    layers = []
    for layer in template.iterpayloads():
        fields = ", ".join(f"{name}={value}" for name, value in _promised(layer))
        layers.append(f"{type(layer).__name__}({fields})")
    return " / ".join(layers)


def _compare(
    wanted: Sequence[Packet], present: Sequence[Packet], *, unfinished_checksum: bool
) -> Iterator[PacketDifference]:
    for layer, other in zip_longest(wanted, present[: len(wanted)]):
        kind = type(layer)
        if kind is Raw:
            # A template of bytes compares bytes, however scapy dissects a payload.
            load = b"" if other is None else other.load if type(other) is Raw else bytes(other)
            if load != layer.load:
                yield PacketDifference("Raw", "load", layer.load, load)
        elif not isinstance(other, kind):
            yield PacketDifference(kind.__name__)
        else:
            for name, value in _promised(layer):
                if unfinished_checksum and name in _CHECKSUMS and layer.name != "IP":
                    continue
                found = other.getfieldval(name)
                if not _admits(layer, name, value, found):
                    yield PacketDifference(kind.__name__, name, value, found)


def _promised(layer: Packet) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a template layer that were set explicitly.

    scapy puts copies of mutable defaults beside them.
    """
    untouched = type(layer)().fields
    for name, value in layer.fields.items():
        copied = name in untouched and untouched[name] == value and not _says_something(value)
        if value is not None and not copied:
            yield name, value


def _says_something(value: object) -> bool:
    """Return True if a value contains packets with explicitly set fields.

    Such a value was set explicitly, even if it equals the default.
    """
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, Packet) and any(_promised(item)) for item in items)


def _admits(layer: Packet, name: str, wanted: Any, found: Any) -> bool:
    if isinstance(wanted, Packet):
        several = found if isinstance(found, list) else [found]
        return any(isinstance(item, Packet) and not differences(wanted, item) for item in several)
    if isinstance(wanted, list) and not isinstance(found, list):
        return any(_admits(layer, name, item, found) for item in wanted)
    if isinstance(wanted, list) and all(isinstance(item, Packet) for item in wanted):
        return all(_admits(layer, name, item, found) for item in wanted)
    return _is_in(layer, name, wanted, found)


def _is_in(layer: Packet, name: str, wanted: Any, found: Any) -> bool:
    match wanted:
        case (int() as first, int() as last) if isinstance(found, int):
            return first <= found <= last
        case Net():
            return found in wanted
        case IPv4Network() | IPv6Network():
            return ip_address(found) in wanted
        case IPv4Address() | IPv6Address():
            return ip_address(found) == wanted
        case _:
            # A MAC in capitals and a name without its final dot are the same on the wire.
            field = layer.get_field(name)
            return bool(wanted == found or field.i2m(layer, wanted) == field.i2m(layer, found))
