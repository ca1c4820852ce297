"""nft statements that change a packet where it is, without tracking its connection."""

from __future__ import annotations

import struct
from typing import Final, Literal

from linux.netlink import attr, be32, nest, text
from linux.nft import Expression

_REGISTER: Final = 1
_TRANSPORT_HEADER: Final = 2
_INTERNET_CHECKSUM: Final = 1
_CHECKSUMS: Final = {"udp": 6, "tcp": 16}
"""Where the checksum is, in bytes from the beginning of the transport header."""


def set_port(
    which: Literal["source", "destination"], protocol: Literal["udp", "tcp"], port: int
) -> list[Expression]:
    """Write another port into the packet and set its checksum right; put `l4proto` before it."""
    value = nest(2, attr(1, struct.pack(">H", port)))
    return [
        nest(1, text(1, "immediate"), nest(2, be32(1, _REGISTER), value)),
        nest(
            1,
            text(1, "payload"),
            nest(
                2,
                be32(5, _REGISTER),
                be32(2, _TRANSPORT_HEADER),
                be32(3, 0 if which == "source" else 2),
                be32(4, 2),
                be32(6, _INTERNET_CHECKSUM),
                be32(7, _CHECKSUMS[protocol]),
            ),
        ),
    ]
