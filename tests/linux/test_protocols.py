"""Which transport protocols the kernel speaks."""

from __future__ import annotations

import socket

import pytest

from linux.proc import protocol_available


@pytest.mark.parametrize("name", ["TCP", "UDP", "TCPv6", "UDPv6"])
def test_what_every_kernel_speaks_is_spoken(name: str) -> None:
    """Names are whole, as the kernel writes them."""
    assert protocol_available(name)
    assert not protocol_available(name[:2])


def test_what_is_spoken_has_sockets() -> None:
    """SCTP is spoken only where a socket for it can be opened."""
    said = protocol_available("SCTP")
    if said:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    else:
        assert not protocol_available("SCTPv6")
