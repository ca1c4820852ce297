"""Offload features of a link: ethtool(8). A veth reports them but does not perform them.

With offload on, a veth passes segments far longer than the MTU. It also passes checksums that are
not filled in, which the receiver trusts. With offload off, each packet is as on a physical link,
and the receiver checks it.
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
"""Space for 128 features in blocks of 32, each with available, requested, active and fixed bits."""
_IFREQ: Final = struct.Struct("16sP16x")
_VALUE: Final = struct.Struct("=II")


@contextlib.contextmanager
def without_offload(view: NetnsView, link: str = "eth0") -> Iterator[None]:
    """Disable offload of a link while the body runs.

    The kernel then segments packets and computes checksums itself; both are switched together.
    Raises `UserspaceStack` if the host's kernel does not send the packets.
    """
    with view.open() as space:
        by_kernel(space)
    with view.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        before = _ethtool(opened, link, _GET_CHECKSUMS)
        _ethtool(opened, link, _SET_CHECKSUMS, 0)
        try:
            yield
        finally:
            _ethtool(opened, link, _SET_CHECKSUMS, before)


def switch_off(view: NetnsView, link: str) -> None:
    """Disable offload of a link for good: the kernel segments packets and computes checksums."""
    with view.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        _ethtool(opened, link, _SET_CHECKSUMS, 0)


def features(view: NetnsView, link: str) -> bytes:
    """Return the kernel's reply on the features of a link, as bits, for comparison only."""
    answer = array.array("B", _VALUE.pack(_GET_FEATURES, _BLOCKS) + bytes(_BLOCKS * _BLOCK))
    address, _ = answer.buffer_info()
    with view.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        fcntl.ioctl(opened, _SIOCETHTOOL, _IFREQ.pack(link.encode(), address))
    return answer.tobytes()


def _ethtool(opened: socket.socket, link: str, command: int, value: int = 0) -> int:
    request = array.array("B", _VALUE.pack(command, value))
    address, _ = request.buffer_info()
    fcntl.ioctl(opened, _SIOCETHTOOL, _IFREQ.pack(link.encode(), address))
    return int(_VALUE.unpack(request)[1])
