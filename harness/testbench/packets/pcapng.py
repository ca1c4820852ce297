"""Writer of captured frames as a pcapng file, with a named interface for each tap.

The format is draft-ietf-opsawg-pcapng. scapy's writer is not used: it begins with an unnamed
interface and omits interfaces without frames. It also truncates times to microseconds, about the
time that a frame takes from one tap to the next (scapy 2.8: `RawPcapNgWriter.tsresol`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.testbench.packets.packet_ring import Frame

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_COMMENT, _NAME, _FLAGS, _APPLICATION, _RESOLUTION = 1, 2, 2, 4, 9
_BYTE_ORDER: Final = 0x1A2B3C4D
_UNTIL_THE_END: Final = -1
_NANOSECONDS: Final = b"\x09"
_ETHERNET, _RAW_IP = 1, 101
_INBOUND, _OUTBOUND = 1, 2


def write(
    path: Path,
    frames: Iterable[Frame],
    *,
    interfaces: Sequence[str] = (),
    comment: str = "",
    comments: Mapping[Frame, str] | None = None,
) -> None:
    """Write `frames` to a pcapng file in the given order, with times in nanoseconds.

    The file names all `interfaces`, even those without frames. `comment` is about the file,
    `comments` are about single frames. Raises `OSError` if `path` cannot be written.
    """
    section = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, _UNTIL_THE_END)
    blocks = [_block(_SECTION, section, _text(_APPLICATION, "netmodes"), _text(_COMMENT, comment))]
    numbers: dict[tuple[str, int], int] = {}

    def number(where: str, link: int) -> int:
        if (where, link) not in numbers:
            numbers[where, link] = len(numbers)
            name, resolution = _text(_NAME, where), _option(_RESOLUTION, _NANOSECONDS)
            blocks.append(_block(_INTERFACE, struct.pack("=HHI", link, 0, 0), name, resolution))
        return numbers[where, link]

    for where in interfaces:
        number(where, _ETHERNET)
    for frame in frames:
        interface = number(frame.where, _ETHERNET if frame.ethernet else _RAW_IP)
        kept = len(frame.data)
        head = struct.pack(
            "=IIIII", interface, frame.at >> 32, frame.at & 0xFFFFFFFF, kept, frame.length
        )
        direction = struct.pack("=I", _OUTBOUND if frame.outgoing else _INBOUND)
        note = _text(_COMMENT, (comments or {}).get(frame, ""))
        blocks.append(_block(_PACKET, head + _padded(frame.data), _option(_FLAGS, direction), note))
    path.write_bytes(b"".join(blocks))


def _block(kind: int, body: bytes, *options: bytes) -> bytes:
    content = body + b"".join(options) + bytes(4)  # the end of the options
    length = struct.pack("=I", len(content) + 12)
    return struct.pack("=I", kind) + length + content + length


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


def _text(code: int, text: str) -> bytes:
    return _option(code, text.encode()) if text else b""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
