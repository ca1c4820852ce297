"""Frames from a ring buffer that the kernel and this process share: packet(7), packet_mmap.

A ring has two measured advantages over `recv`. First, the kernel stamps each frame when it puts the
frame into a ring. For a socket's queue, it starts to stamp frames only some time after the request.
The frames of different taps then come out of order. Second, a queue is limited by
`net.core.rmem_max`, which an ordinary user cannot raise.
"""

from __future__ import annotations

import mmap
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final

from linux.netns import NetNS

if TYPE_CHECKING:
    from scapy.packet import Packet


SLOT: Final = 2048
"""Size of a slot in bytes; frames are truncated at about 1,960 bytes."""

_ETH_P_ALL: Final = 3
_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_TPACKET_V2: Final = 1
_STATUS_KERNEL: Final = 0
_STATUS_USER: Final = 1 << 0
_STATUS_UNFINISHED_CHECKSUM: Final = 1 << 3
_STATUS_VLAN: Final = 1 << 4
_STATUS_VLAN_TPID: Final = 1 << 6

_BLOCK: Final = 1 << 17
_STATUS: Final = struct.Struct("=I")
_HEAD: Final = struct.Struct("=IIIHHIIHH")  # struct tpacket2_hdr
_ADDRESS: Final = struct.Struct("=HHiHBB")  # struct sockaddr_ll, without the address
_ADDRESS_AT: Final = 32
_VLAN_AT: Final = 12
_ETHERTYPE_VLAN: Final = 0x8100


WITH_ETHERNET_HEADER: Final = frozenset({1, 772})  # ARPHRD_ETHER, ARPHRD_LOOPBACK


class FrameKind(IntEnum):
    """Destination or direction of a frame, as the interface saw it: PACKET_… of packet(7)."""

    HOST = 0
    BROADCAST = 1
    MULTICAST = 2
    OTHER_HOST = 3
    OUTGOING = 4


@dataclass(frozen=True)
class Frame:
    """One captured frame.

    `at` is its time in nanoseconds since the epoch. `length` is the length on the wire in bytes;
    `data` is the stored part, which may be shorter. `ethernet` is false on interfaces that carry
    bare IP.

    With segmentation offload a frame can be longer than the MTU. With `unfinished_checksum` the
    transport checksum is not filled in yet. Both also occur in captures on a real machine.
    """

    where: str
    at: int
    kind: FrameKind
    length: int
    data: bytes
    unfinished_checksum: bool = False
    ethernet: bool = True

    @property
    def outgoing(self) -> bool:
        """True if the interface sent the frame rather than received it."""
        return self.kind is FrameKind.OUTGOING

    @cached_property
    def packet(self) -> Packet:
        """The frame as scapy parses it; the first use imports scapy."""
        from scapy.layers import inet, inet6, l2

        if self.ethernet:
            return l2.Ether(self.data)
        return (inet6.IPv6 if self.data[:1] >= b"\x60" else inet.IP)(self.data)

    def __str__(self) -> str:
        arrow = "out" if self.outgoing else "in"
        return f"{self.where} {arrow}  {self.packet.summary()}"


class Ring:
    """An open ring buffer on one interface of a namespace, or on all interfaces.

    A ring receives every frame from its creation on. Raises `OSError` if the interface does not
    exist or the caller has no CAP_NET_RAW. Creating a ring takes about 10 ms and closing it 25 ms.
    Each of the two waits until no processor of the machine handles a packet any more.
    """

    def __init__(self, netns: NetNS, ifname: str, slots: int) -> None:
        blocks = -(-slots * SLOT // _BLOCK)
        self._slots = blocks * (_BLOCK // SLOT)
        self._next = 0
        # With protocol 0 no frame arrives before the ring is bound to its interface. A ring for
        # all interfaces cannot be bound, so frames that arrived before its creation are
        # discarded.
        protocol = 0 if ifname else socket.htons(_ETH_P_ALL)
        self._socket = netns.socket(socket.AF_PACKET, socket.SOCK_RAW, protocol)
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            shape = struct.pack("=IIII", _BLOCK, blocks, SLOT, self._slots)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, shape)
            self._ring = mmap.mmap(self._socket.fileno(), blocks * _BLOCK)
            if ifname:
                self._socket.bind((ifname, _ETH_P_ALL))
        except BaseException:
            self._socket.close()
            raise

    def read(self, name: Callable[[int], str] = str) -> Iterator[Frame]:
        """Yield the frames since the last call of this method, oldest first.

        At most one lap of the ring is read. `name` maps an interface index to the interface's name.
        """
        for _ in range(self._slots):
            base = self._next * SLOT
            status, length, kept, mac, _, seconds, nanoseconds, tci, tpid = _HEAD.unpack_from(
                self._ring, base
            )
            if not status & _STATUS_USER:
                return
            _, _, interface, hardware, kind, _ = _ADDRESS.unpack_from(
                self._ring, base + _ADDRESS_AT
            )
            data = self._ring[base + mac : base + mac + kept]
            _STATUS.pack_into(self._ring, base, _STATUS_KERNEL)
            self._next = (self._next + 1) % self._slots
            if status & _STATUS_VLAN:
                tag = struct.pack(
                    ">HH", tpid if status & _STATUS_VLAN_TPID else _ETHERTYPE_VLAN, tci
                )
                data, length = data[:_VLAN_AT] + tag + data[_VLAN_AT:], length + len(tag)
            yield Frame(
                name(interface),
                seconds * 10**9 + nanoseconds,
                FrameKind(kind),
                length,
                data,
                bool(status & _STATUS_UNFINISHED_CHECKSUM),
                hardware in WITH_ETHERNET_HEADER,
            )

    def discard(self) -> None:
        """Discard all frames so far, and reset the count of lost frames."""
        for _ in self.read():
            pass
        self.lost()

    def lost(self) -> int:
        """Return the number of frames that were lost since the last call of this method."""
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("=II", statistics)[1])

    def close(self) -> None:
        """Unmap the ring buffer and close its socket."""
        self._ring.close()
        self._socket.close()
