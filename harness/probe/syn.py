"""Capture of arriving SYNs, even when the reply path is blocked and no connection is accepted.

A listener reports a connection only after the handshake. A raw TCP socket
(raw(7)) gets a copy of each segment that the netns accepts, after its input rules, as the
raw ICMP socket does for echo requests. The initial sequence number of a SYN identifies its
question: 32 bits that differ for each connection (RFC 6528) and that NAT does not change,
while NAT may change both ports.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from harness.model.plan import Family
from harness.model.topology import Address
from harness.probe.remote import AgentNetNS
from harness.probe.sockets import Make, raw_socket, receive
from linux.netns import NetNS

_SO_ATTACH_FILTER: Final = 26
_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ = 19, 20, 21
_SEND_QUEUE: Final = 2
_REPAIR_OFF_QUIETLY: Final = -1
"""TCP_REPAIR_OFF_NO_WP: leave repair mode without sending a window probe."""

_FLAGS, _SYN_ACK, _SYN = 13, 0x12, 0x02
_LDX_IHL, _LDB_AT_X, _LDB, _AND, _JEQ, _RET = 0xB1, 0x50, 0x30, 0x54, 0x15, 0x06
_ONLY_SYN: Final = ((_AND, 0, 0, _SYN_ACK), (_JEQ, 0, 1, _SYN), (_RET, 0, 0, 64), (_RET, 0, 0, 0))
_FILTERS: Final[dict[Family, tuple[tuple[int, int, int, int], ...]]] = {
    4: ((_LDX_IHL, 0, 0, 0), (_LDB_AT_X, 0, 0, _FLAGS), *_ONLY_SYN),
    6: ((_LDB, 0, 0, _FLAGS), *_ONLY_SYN),
}
"""Classic BPF: SYN without ACK. Raw IPv4 sockets see the IP header, IPv6 ones do not."""
_STEP: Final = struct.Struct("=HBBI")


def _assembled(family: Family) -> ctypes.Array[ctypes.c_char]:
    program = b"".join(_STEP.pack(*step) for step in _FILTERS[family])
    return ctypes.create_string_buffer(program, len(program))


_STEPS: Final[dict[Family, ctypes.Array[ctypes.c_char]]] = {4: _assembled(4), 6: _assembled(6)}


class Syn(NamedTuple):
    """A SYN as it arrived: its sequence number, sender and TTL."""

    sequence: int
    source: Address
    port: int
    ttl: int | None


def syn_ear(space: NetNS, family: Family, make: Make) -> socket.socket:
    """Open a raw socket with `make` that receives the SYNs arriving in a netns."""
    opened = raw_socket(family, socket.IPPROTO_TCP, make)
    opened.setblocking(False)
    if isinstance(space, AgentNetNS):
        return opened  # a filter is a pointer: it cannot be sent to the agent
    steps = _STEPS[family]
    program = struct.pack("@HP", len(steps) // _STEP.size, ctypes.addressof(steps))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    return opened


def overheard(ear: socket.socket, family: Family) -> Iterator[Syn]:
    """Yield the SYNs that have arrived since the last call."""
    while datagram := receive(ear):
        header = (datagram.data[0] & 0xF) * 4 if family == 4 else 0
        port, _, sequence = struct.unpack_from("!HHI", datagram.data, header)
        if datagram.data[header + _FLAGS] & _SYN_ACK == _SYN:
            ttl = datagram.data[8] if family == 4 else datagram.ttl
            yield Syn(sequence, datagram.source, port, ttl)


def initial_sequence(connecting: socket.socket) -> int:
    """Return the sequence number of the unanswered SYN that a socket has sent.

    Only a socket in repair mode reports it (TCP_REPAIR, linux/tcp.h). The function leaves repair
    mode at once. It needs CAP_NET_ADMIN in the socket's netns.
    """
    tcp = socket.IPPROTO_TCP
    connecting.setsockopt(tcp, _TCP_REPAIR, 1)
    try:
        connecting.setsockopt(tcp, _TCP_REPAIR_QUEUE, _SEND_QUEUE)
        following = connecting.getsockopt(tcp, _TCP_QUEUE_SEQ)
    finally:
        connecting.setsockopt(tcp, _TCP_REPAIR, _REPAIR_OFF_QUIETLY)
    return (following - 1) & 0xFFFFFFFF


class SynListener:
    """Receiver and store of the SYNs that arrive in a netns."""

    def __init__(self, space: NetNS, family: Family, make: Make) -> None:
        self.space, self.family = space, family
        self._socket = syn_ear(space, family, make)
        self._heard: list[Syn] = []

    def heard(self) -> Sequence[Syn]:
        """Return all SYNs that have arrived so far."""
        self._heard += overheard(self._socket, self.family)
        return self._heard

    def ttl(self, source: Address, port: int) -> int | None:
        """Return the TTL of the last SYN from this address and port, `None` without one."""
        for syn in reversed(self.heard()):
            if (syn.source, syn.port) == (source, port):
                return syn.ttl
        return None

    def close(self) -> None:
        """Stop hearing."""
        self._socket.close()


class SynListeners:
    """The SYN listeners of a matrix, by station number and family."""

    def __init__(self) -> None:
        self._ears: dict[tuple[int, Family], SynListener] = {}

    def add(self, number: int, ear: SynListener) -> None:
        """Add the listener of a station."""
        self._ears[number, ear.family] = ear

    def ttl(self, number: int, family: Family, source: Address, port: int) -> int | None:
        """Return the TTL of the last such SYN at a station, `None` without one."""
        return self._ears[number, family].ttl(source, port)

    def lost(
        self, connecting: Iterable[tuple[int, socket.socket]]
    ) -> Iterator[tuple[int, NetNS, Syn]]:
        """Yield the connecting sockets whose SYN has arrived: number, netns of arrival and SYN."""
        sent = PendingSyns(connecting)
        for ear in self._ears.values() if sent else ():
            for syn in ear.heard():
                if (number := sent.by(syn)) is not None:
                    yield number, ear.space, syn

    def close(self) -> None:
        """Stop hearing."""
        for ear in self._ears.values():
            ear.close()


class PendingSyns:
    """The SYNs of sockets that are still connecting, each with a number of the caller.

    They are identified by sequence number. If the source stack does not report it, or repair mode
    is not permitted (TCP_REPAIR), they are identified by their port, which no other socket has.
    NAT may change the port, and then they are not found.
    """

    def __init__(self, connecting: Iterable[tuple[int, socket.socket]]) -> None:
        self._by_sequence: dict[int, int] = {}
        self._by_port: dict[int, int | None] = {}
        for number, opened in connecting:
            try:
                self._by_sequence[initial_sequence(opened)] = number
            except OSError:
                port = opened.getsockname()[1]
                self._by_port[port] = None if port in self._by_port else number

    def __bool__(self) -> bool:
        return bool(self._by_sequence or self._by_port)

    def by(self, syn: Syn) -> int | None:
        """Return the number of the socket that sent a SYN, `None` without one."""
        return self._by_sequence.get(syn.sequence, self._by_port.get(syn.port))
