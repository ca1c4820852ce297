"""The probe sockets of a netns: senders of requests, and the witnesses that receive them.

For each family there are four sockets. They are opened inside the netns through setns and can then
be used from outside:

- a raw ICMP socket sends and receives echo requests, to which the kernel itself replies;
- a UDP socket sends datagrams;
- another UDP socket and a TCP listener are the witnesses.

A listener reports a connection only after the handshake. A raw TCP socket (raw(7)) therefore gets a
copy of each SYN that passes the input rules of the netns. It gets the SYN even if the reply path is
blocked. The initial sequence number of a SYN identifies its request. These 32 bits differ for each
connection (RFC 6528), and NAT does not change them, while NAT may change both ports.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, NamedTuple, TypeGuard

from harness.model.plan import FAMILIES, Family
from harness.model.topology import Address
from harness.probe import icmp
from harness.probe.remote import AgentNetNS
from linux.netns import NetNS


def seen_from_host(space: NetNS, stack: contextlib.ExitStack) -> NetNS:
    """Return a handle on the netns that the host has for `space`; `stack` closes a new handle."""
    return stack.enter_context(space.outside()) if isinstance(space, AgentNetNS) else space


def has_own_stack(space: NetNS) -> TypeGuard[AgentNetNS]:
    """Return whether the handle is on a container with a user-space network stack."""
    return isinstance(space, AgentNetNS) and space.own_stack


_BUFFER: Final = 8 << 20
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SOL_RAW, _ICMP_FILTER = 255, 1
_ICMP6_FILTER: Final = 1
_IP_RECVTTL, _IP_PKTINFO = 12, 8
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50
_IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT = 51, 52
_BACKLOG: Final = 4096
_ANCILLARY: Final = 512
_ORIGIN_ICMP: Final = (2, 3)

ADDRESS_FAMILIES: Final[dict[int, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
ICMP_PROTOCOLS: Final[dict[int, int]] = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
RECVERR: Final[dict[int, int]] = {4: 11, 6: 25}
"""IP_RECVERR and IPV6_RECVERR: the error queue has the ICMP errors."""
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing resets, so that no TIME_WAIT is left behind in the tested namespace."""
IP_LEVELS: Final[dict[int, int]] = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}


class PortsTaken(Exception):
    """None of the tried ports is free in every namespace of the matrix."""


class Datagram(NamedTuple):
    """A received datagram with its sender, its TTL and its destination address."""

    data: bytes
    source: Address
    port: int
    ttl: int | None
    to: Address | None


class SocketError(NamedTuple):
    """An entry of a socket's error queue: an errno, and the payload of the packet that failed.

    If an ICMP error was the cause, `code` is the name of the error and `offender` is its sender.
    """

    errno: int
    data: bytes = b""
    code: str = ""
    offender: Address | None = None


Make = Callable[[int, int, int], socket.socket]
"""Function that opens a socket of a family, kind and protocol."""


@contextlib.contextmanager
def sockets_of(space: NetNS) -> Iterator[Make]:
    """Yield a function that opens sockets in the netns, for use in the body of the `with`.

    A whole batch of sockets thus needs only one setns.
    """
    if isinstance(space, AgentNetNS):
        yield space.socket
    else:
        with space.entered():
            yield socket.socket


class ProbeSockets:
    """All probe sockets of a handle on a netns; `number` identifies the handle in replies.

    A netns may have several such sets, one for each source in it. Only one of them is a `witness`.
    """

    def __init__(self, netns: NetNS, number: int, port: int, *, witness: bool = True) -> None:
        self.number = number
        self.netns = netns
        self.port = port
        self.witness = witness
        self.raw: dict[Family, socket.socket] = {}
        self.udp: dict[Family, socket.socket] = {}
        self.udp_witness: dict[Family, socket.socket] = {}
        self.listener: dict[Family, socket.socket] = {}
        try:
            with sockets_of(netns) as make:
                for family in FAMILIES:
                    self.raw[family] = _echoes(family, make)
                    self.udp[family] = _udp(family, make)
                    if witness:
                        self._open_witnesses(family, make)
            for opened in self.sockets():
                opened.setblocking(False)
        except BaseException:
            self.close()
            raise

    def _open_witnesses(self, family: Family, make: Make) -> None:
        udp = self.udp_witness[family] = _udp(family, make)
        udp.bind((anywhere(family), self.port))
        listener = self.listener[family] = _new(family, socket.SOCK_STREAM, 0, make)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((anywhere(family), self.port))
        listener.listen(_BACKLOG)

    def connecting(
        self, family: Family, make: Make = socket.socket, port: int = 0
    ) -> socket.socket:
        """Open a TCP socket in this netns with `make`, a function from `sockets_of`.

        The sequence number of a SYN may be unknown if an agent opens the socket. Such a socket is
        bound to `port`, which no other socket has. If `port` is in use inside, the kernel chooses
        another.
        """
        stream = _new(family, socket.SOCK_STREAM, 0, make)
        stream.setblocking(False)
        stream.setsockopt(IP_LEVELS[family], RECVERR[family], 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        if isinstance(self.netns, AgentNetNS):
            with contextlib.suppress(OSError):
                stream.bind((anywhere(family), port))
        return stream

    def sockets(self) -> Iterable[socket.socket]:
        """Yield all sockets that are open."""
        for group in (self.raw, self.udp, self.udp_witness, self.listener):
            yield from group.values()

    def close(self) -> None:
        """Close every socket."""
        for open_socket in self.sockets():
            open_socket.close()


def anywhere(family: Family) -> str:
    """Return the wildcard address of the family."""
    return "0.0.0.0" if family == 4 else "::"  # noqa: S104 # inside the namespace


def opener(space: NetNS) -> object:
    """Return a key that is equal for handles that open their sockets in the same network stack."""
    return space.agent if isinstance(space, AgentNetNS) else space.id


def open_sockets(spaces: Sequence[NetNS], ports: Iterable[int]) -> list[ProbeSockets]:
    """Open the probe sockets of each handle; one set of sockets per netns is the witness.

    All witnesses use the same port. A packet that reaches the wrong peer therefore gets a reply
    from that peer's witness, not from its kernel. The port is the first of `ports` that is free in
    every namespace. Raises `PortsTaken` if none is.
    """
    tried = []
    for port in ports:
        tried.append(port)
        found: list[ProbeSockets] = []
        witnessed: set[tuple[int, int]] = set()
        try:
            for number, space in enumerate(spaces):
                witness = space.id not in witnessed
                found.append(ProbeSockets(space, number, port, witness=witness))
                witnessed.add(space.id)
        except OSError as error:
            for opened in found:
                opened.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return found
    raise PortsTaken(f"each of the ports {tried} is in use in one of {len(spaces)} namespaces")


# --- sockets -----------------------------------------------------------------


def _new(family: Family, kind: int, protocol: int, make: Make) -> socket.socket:
    opened = make(ADDRESS_FAMILIES[family], kind | socket.SOCK_CLOEXEC, protocol)
    if family == 6 and kind != socket.SOCK_RAW:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return opened


def _enlarge_buffers(opened: socket.socket) -> None:
    for force, plain_option in (
        (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (_SO_SNDBUFFORCE, socket.SO_SNDBUF),  # packets wait here for their first hop
    ):
        try:
            opened.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, plain_option, _BUFFER)


def raw_socket(family: Family, protocol: int, make: Make) -> socket.socket:
    """Open a raw socket with buffers for all packets that are in flight at the same time."""
    opened = _new(family, socket.SOCK_RAW, protocol, make)
    if family == 6:
        opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, 1)
    _enlarge_buffers(opened)
    return opened


def _echoes(family: Family, make: Make) -> socket.socket:
    wanted = (icmp.ECHO_REQUEST[family], icmp.ECHO_REPLY[family], *icmp.ERRORS[family])
    opened = raw_socket(family, ICMP_PROTOCOLS[family], make)
    if family == 4:
        mask = ~sum(1 << kind for kind in wanted) & 0xFFFFFFFF
        opened.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", mask))
    else:
        words = [0xFFFFFFFF] * 8
        for kind in wanted:
            words[kind >> 5] &= ~(1 << (kind & 31)) & 0xFFFFFFFF
        opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
    return opened


def _udp(family: Family, make: Make) -> socket.socket:
    opened = _new(family, socket.SOCK_DGRAM, 0, make)
    if family == 4:
        options = (RECVERR[4], _IP_RECVTTL, _IP_PKTINFO)
    else:
        options = (RECVERR[6], _IPV6_RECVHOPLIMIT, _IPV6_RECVPKTINFO)
    for option in options:
        opened.setsockopt(IP_LEVELS[family], option, 1)
    _enlarge_buffers(opened)
    return opened


# --- receiving ----------------------------------------------------------------


def receive(opened: socket.socket, size: int = 2048) -> Datagram | None:
    """Return the next datagram, cut at `size` bytes; `None` if there is none, or on an error."""
    try:
        data, ancillary, _, sender = opened.recvmsg(size, _ANCILLARY)
    except BlockingIOError:
        return None
    except OSError:
        return None  # an ICMP error: the error queue has its details
    ttl: int | None = None
    to: Address | None = None
    for level, kind, value in ancillary:
        if (level, kind) in ((socket.IPPROTO_IP, 2), (socket.IPPROTO_IPV6, _IPV6_HOPLIMIT)):
            ttl = struct.unpack_from("=i", value)[0]
        elif (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            to = unpacked(value[8:12])
        elif (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            to = unpacked(value[:16])
    return Datagram(data, plain(sender[0]), sender[1] if len(sender) > 1 else 0, ttl, to)


def reply(opened: socket.socket, to: Datagram, data: bytes) -> None:
    """Reply to a datagram from the address to which it was sent, as a real server would."""
    if to.to is None:
        return
    if to.source.version == 4:
        info = struct.pack("=i4s4s", 0, to.to.packed, bytes(4))
        ancillary: list[tuple[int, int, Any]] = [(socket.IPPROTO_IP, _IP_PKTINFO, info)]
    else:
        info = to.to.packed + struct.pack("=i", 0)
        ancillary = [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, info)]
    with contextlib.suppress(OSError):  # no route back: the source correctly receives no reply
        opened.sendmsg([data], ancillary, 0, (spelled(to.source), to.port))


def pending_error(opened: socket.socket, family: Family) -> SocketError | None:
    """Return the next entry of the socket's error queue, or `None` if the queue is empty."""
    try:
        data, ancillary, _, _ = opened.recvmsg(2048, _ANCILLARY, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for level, kind, value in ancillary:
        if (level, kind) == (IP_LEVELS[family], RECVERR[family]):
            number, origin, its_type, its_code = struct.unpack_from("=IBBB", value)
            if origin not in _ORIGIN_ICMP:
                return SocketError(number, data)
            offender = value[20:24] if family == 4 else value[24:40]  # a sockaddr follows: ip(7)
            code = icmp.name(family, its_type, its_code)
            return SocketError(number, data, code, unpacked(offender))
    return SocketError(0, data)


def connected(stream: socket.socket) -> bool:
    """Return whether the connection of a socket has been established."""
    try:
        stream.getpeername()
    except OSError:
        return False
    return True


_MANY = 4096


@lru_cache(maxsize=_MANY)
def plain(text: str) -> Address:
    """Return the address that a socket has reported as text.

    The scope id is removed, and an IPv4-mapped IPv6 address becomes an IPv4 address.
    """
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=_MANY)
def spelled(address: Address) -> str:
    """Return an address as text, in the form that a socket expects."""
    return str(address)


@lru_cache(maxsize=_MANY)
def unpacked(packed: bytes) -> Address:
    """Return the address that 4 or 16 bytes encode in network order.

    Raises `ValueError` for any other number of bytes.
    """
    return ip_address(packed)


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


class Syn(NamedTuple):
    """A received SYN: its sequence number, sender and TTL."""

    sequence: int
    source: Address
    port: int
    ttl: int | None


class SynListener:
    """Raw socket that receives and stores the SYNs that arrive in a netns."""

    def __init__(self, space: NetNS, family: Family, make: Make) -> None:
        self.space, self._family = space, family
        self._received: list[Syn] = []
        self._socket = raw_socket(family, socket.IPPROTO_TCP, make)
        self._socket.setblocking(False)
        if not isinstance(space, AgentNetNS):  # a filter is a pointer: no agent can use it
            steps = b"".join(struct.pack("=HBBI", *step) for step in _FILTERS[family])
            buffer = ctypes.create_string_buffer(steps, len(steps))
            program = struct.pack("@HP", len(_FILTERS[family]), ctypes.addressof(buffer))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def received(self) -> Sequence[Syn]:
        """Return all SYNs that have arrived so far."""
        while datagram := receive(self._socket):
            header = (datagram.data[0] & 0xF) * 4 if self._family == 4 else 0
            port, _, sequence = struct.unpack_from("!HHI", datagram.data, header)
            if datagram.data[header + _FLAGS] & _SYN_ACK == _SYN:
                ttl = datagram.data[8] if self._family == 4 else datagram.ttl
                self._received.append(Syn(sequence, datagram.source, port, ttl))
        return self._received

    def ttl(self, source: Address, port: int) -> int | None:
        """Return the TTL of the last SYN from this address and port, or `None` if there is none."""
        syns = (
            syn for syn in reversed(self.received()) if (syn.source, syn.port) == (source, port)
        )
        return next((syn.ttl for syn in syns), None)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def received_syns(
    listeners: Iterable[SynListener], connecting: Mapping[int, socket.socket]
) -> Iterator[tuple[int, NetNS, Syn]]:
    """Yield each SYN that arrived, with the number of the request and the netns of arrival.

    A SYN is identified by its sequence number. If the source's stack does not report that number,
    or does not permit repair mode (TCP_REPAIR), the SYN is identified by its source port. No other
    socket has this port. If NAT has changed the port, the SYN is not found.
    """
    by_sequence: dict[int, int] = {}
    by_port: dict[int, int | None] = {}
    for number, opened in connecting.items():
        try:
            by_sequence[_initial_sequence(opened)] = number
        except OSError:
            port = opened.getsockname()[1]
            by_port[port] = None if port in by_port else number
    for listener in listeners if connecting else ():
        for syn in listener.received():
            found = by_sequence.get(syn.sequence, by_port.get(syn.port))
            if found is not None:
                yield found, listener.space, syn


def _initial_sequence(connecting: socket.socket) -> int:
    """Return the sequence number of the SYN that a connecting socket has sent.

    Only a socket in repair mode reports it (TCP_REPAIR, linux/tcp.h). Repair mode needs
    CAP_NET_ADMIN in the socket's netns; the function leaves this mode at once.
    """
    tcp = socket.IPPROTO_TCP
    connecting.setsockopt(tcp, _TCP_REPAIR, 1)
    try:
        connecting.setsockopt(tcp, _TCP_REPAIR_QUEUE, _SEND_QUEUE)
        following = connecting.getsockopt(tcp, _TCP_QUEUE_SEQ)
    finally:
        connecting.setsockopt(tcp, _TCP_REPAIR, _REPAIR_OFF_QUIETLY)
    return (following - 1) & 0xFFFFFFFF
