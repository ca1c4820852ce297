"""Transport protocols of the kernel."""

from __future__ import annotations

import socket

import pytest

from linux.proc import protocol_available


@pytest.mark.parametrize("name", ["TCP", "UDP", "TCPv6", "UDPv6"])
def test_common_protocols_are_available(name: str) -> None:
    """Names are compared as a whole."""
    assert protocol_available(name)
    assert not protocol_available(name[:2])


def test_available_sctp_has_sockets() -> None:
    """SCTP is available only where a socket for it can be opened."""
    said = protocol_available("SCTP")
    if said:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    else:
        assert not protocol_available("SCTPv6")
