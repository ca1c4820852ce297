"""What a network card is asked to do for the kernel, and a veth leaves undone: ethtool(8).

With offload on, a veth passes segments far longer than the MTU and checksums that
nobody has filled in, and the receiver trusts them. Without it each packet is as it
would be on a wire, and the receiver checks it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import socket
import struct
from collections.abc import Iterator
from typing import Final

from harness.probe.remote import by_kernel
from harness.testbench.netns_view import NetnsView

_SIOCETHTOOL: Final = 0x8946
_GET_CHECKSUMS, _SET_CHECKSUMS = 0x16, 0x17  # ETHTOOL_GTXCSUM, _STXCSUM
_GET_FEATURES: Final = 0x3A  # ETHTOOL_GFEATURES
_BLOCKS, _BLOCK = 4, 16
"""Room for 128 features, 32 at a time with what is available, asked for, active and fixed."""
_IFREQ: Final = struct.Struct("16sP16x")
_VALUE: Final = struct.Struct("=II")


@contextlib.contextmanager
def without_offload(place: NetnsView, link: str = "eth0") -> Iterator[None]:
    """Have the place's own kernel do checksums and segments of what it sends, for a while.

    Segmentation needs checksums: the kernel turns it off and on with them. `OwnStack` where it
    is not the kernel that does them.
    """
    with place.open() as space:
        by_kernel(space)
    with place.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        before = _ethtool(opened, link, _GET_CHECKSUMS)
        _ethtool(opened, link, _SET_CHECKSUMS, 0)
        try:
            yield
        finally:
            _ethtool(opened, link, _SET_CHECKSUMS, before)


def switch_off(place: NetnsView, link: str) -> None:
    """Have the place's own kernel do checksums and segments of what it sends, from now on."""
    with place.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        _ethtool(opened, link, _SET_CHECKSUMS, 0)


def features(place: NetnsView, link: str) -> bytes:
    """All that a link can be asked to do, and what it does: bits by which to compare two looks."""
    answer = array.array("B", _VALUE.pack(_GET_FEATURES, _BLOCKS) + bytes(_BLOCKS * _BLOCK))
    address, _ = answer.buffer_info()
    with place.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        fcntl.ioctl(opened, _SIOCETHTOOL, _IFREQ.pack(link.encode(), address))
    return answer.tobytes()


def _ethtool(opened: socket.socket, link: str, command: int, value: int = 0) -> int:
    request = array.array("B", _VALUE.pack(command, value))
    address, _ = request.buffer_info()
    fcntl.ioctl(opened, _SIOCETHTOOL, _IFREQ.pack(link.encode(), address))
    return int(_VALUE.unpack(request)[1])
