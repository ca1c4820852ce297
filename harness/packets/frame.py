"""One captured frame."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scapy.packet import Packet

_WITH_ETHERNET_HEADER: Final = frozenset({1, 772})  # ARPHRD_ETHER, ARPHRD_LOOPBACK


class Kind(IntEnum):
    """For whom a frame was, as the interface saw it: PACKET_… of packet(7)."""

    HOST = 0
    BROADCAST = 1
    MULTICAST = 2
    OTHER_HOST = 3
    OUTGOING = 4


@dataclass(frozen=True)
class Frame:
    """One captured frame.

    `at` is in nanoseconds since the epoch. `length` is that on the wire, in bytes;
    `data` is what was kept, which may be less. Where segmentation is offloaded a
    frame can be longer than the MTU, and with `unfinished_checksum` its transport
    checksum is still to be filled in: both as on a real machine's own wire tap.
    `ethernet` is false on interfaces that carry bare IP.
    """

    where: str
    at: int
    kind: Kind
    length: int
    data: bytes
    unfinished_checksum: bool = False
    ethernet: bool = True

    @property
    def outgoing(self) -> bool:
        """Whether the interface sent it, rather than received it."""
        return self.kind is Kind.OUTGOING

    @cached_property
    def packet(self) -> Packet:
        """The frame as scapy dissects it. The first one takes a moment: scapy is imported."""
        from scapy.layers import inet, inet6, l2

        if self.ethernet:
            return l2.Ether(self.data)
        return (inet6.IPv6 if self.data[:1] >= b"\x60" else inet.IP)(self.data)

    def __str__(self) -> str:
        arrow = "out" if self.outgoing else "in"
        return f"{self.where} {arrow}  {self.packet.summary()}"


def has_ethernet_header(hardware: int) -> bool:
    """Whether frames of an interface of type ARPHRD_… begin with an Ethernet header."""
    return hardware in _WITH_ETHERNET_HEADER
