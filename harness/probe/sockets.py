"""The sockets of one namespace: those that ask and those that witness.

A station sits in one network namespace and holds, for each family, a raw ICMP
socket (asks, and witnesses echo requests, which the kernel answers itself), a
UDP socket that asks, a UDP socket and a TCP listener that witness. They are
opened inside through setns and used from anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, NamedTuple, TypeGuard

from harness.model.plan import FAMILIES, Family
from harness.model.topology import Address
from harness.probe import icmp
from harness.probe.remote import AgentNetNS
from linux.netns import NetNS


def seen_from_host(space: NetNS, stack: contextlib.ExitStack) -> NetNS:
    """A namespace as the host has it, which `stack` closes; one that is so already as it is."""
    return stack.enter_context(space.outside()) if isinstance(space, AgentNetNS) else space


def has_own_stack(space: NetNS) -> TypeGuard[AgentNetNS]:
    """Whether what is behind a handle is a container with a stack of its own."""
    return isinstance(space, AgentNetNS) and space.own_stack


_BUFFER: Final = 8 << 20
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SOL_RAW, _ICMP_FILTER = 255, 1
_ICMP6_FILTER: Final = 1
_IP_RECVERR, _IP_RECVTTL, _IP_PKTINFO = 11, 12, 8
_IPV6_RECVERR: Final = 25
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50
_IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT = 51, 52
_TCP_SAVE_SYN, _TCP_SAVED_SYN = 27, 28
_BACKLOG: Final = 4096
_ANCILLARY: Final = 512
_ORIGIN_ICMP: Final = (2, 3)
_NO_SUCH_OPTION: Final = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)

_FAMILY: Final[dict[Family, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
_LEVEL: Final[dict[Family, int]] = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}


class PortsTaken(Exception):
    """No port is free in every namespace of the matrix."""


class Datagram(NamedTuple):
    """A received datagram with what came beside it."""

    data: bytes
    source: Address
    port: int
    ttl: int | None
    to: Address | None


class SocketError(NamedTuple):
    """An entry of a socket's error queue: errno, the payload it is about.

    Where an ICMP error was the cause: its name, and who sent it.
    """

    errno: int
    data: bytes = b""
    code: str = ""
    offender: Address | None = None


Make = Callable[[int, int, int], socket.socket]
"""Opens a socket of a family, kind and protocol."""


@contextlib.contextmanager
def sockets_of(space: NetNS) -> Iterator[Make]:
    """What opens sockets in a namespace while the body runs: a batch pays one setns."""
    if isinstance(space, AgentNetNS):
        yield space.socket
    else:
        with space.entered():
            yield socket.socket


class ProbeSockets:
    """All probe sockets of one namespace. `number` says who it is in answers.

    Of several in one namespace, each where somebody else asks, one is a `witness`.
    """

    def __init__(self, netns: NetNS, number: int, port: int, *, witness: bool = True) -> None:
        self.number = number
        self.netns = netns
        self.port = port
        self.witness = witness
        self.raw: dict[Family, socket.socket] = {}
        self.udp: dict[Family, socket.socket] = {}
        self.ear: dict[Family, socket.socket] = {}
        self.listener: dict[Family, socket.socket] = {}
        try:
            with sockets_of(netns) as make:
                for family in FAMILIES:
                    self._open(family, make)
        except BaseException:
            self.close()
            raise

    def _open(self, family: Family, make: Make) -> None:
        raw = self.raw[family] = _echoes(family, make)
        udp = self.udp[family] = _udp(family, make)
        for opened in (raw, udp):
            opened.setblocking(False)
        if self.witness:
            self._open_ears(family, make)

    def _open_ears(self, family: Family, make: Make) -> None:
        ear = self.ear[family] = _udp(family, make)
        listener = self.listener[family] = _new(family, socket.SOCK_STREAM, 0, make)
        ear.bind((anywhere(family), self.port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with _allowance(self.netns):
            listener.setsockopt(socket.IPPROTO_TCP, _TCP_SAVE_SYN, 1)
        listener.bind((anywhere(family), self.port))
        listener.listen(_BACKLOG)
        for opened in (ear, listener):
            opened.setblocking(False)

    def connecting(
        self, family: Family, make: Make = socket.socket, port: int = 0
    ) -> socket.socket:
        """A fresh TCP socket of this namespace, by what opens sockets there (`sockets_of`).

        With an agent's it has that `port`, nobody else's: for who cannot ask for the sequence
        number of its SYN (`syn`). Unless somebody inside listens there: then any will do.
        """
        stream = _new(family, socket.SOCK_STREAM, 0, make)
        stream.setblocking(False)
        stream.setsockopt(_LEVEL[family], _IP_RECVERR if family == 4 else _IPV6_RECVERR, 1)
        # Closing resets: no TIME_WAIT is left behind in the tested namespace.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if isinstance(self.netns, AgentNetNS):
            with contextlib.suppress(OSError):
                stream.bind((anywhere(family), port))
        return stream

    def sockets(self) -> Iterable[socket.socket]:
        """Every socket that is open."""
        for group in (self.raw, self.udp, self.ear, self.listener):
            yield from group.values()

    def close(self) -> None:
        """Close every socket."""
        for open_socket in self.sockets():
            open_socket.close()


def anywhere(family: Family) -> str:
    """Every address of a namespace."""
    return "0.0.0.0" if family == 4 else "::"  # noqa: S104 # inside the namespace


def asker(space: NetNS) -> object:
    """Equal for two handles on a namespace by which the same sockets are opened."""
    return space.agent if isinstance(space, AgentNetNS) else space.id


def open_stations(spaces: Sequence[NetNS], ports: Iterable[int]) -> list[ProbeSockets]:
    """A station for each, all witnessing on the same port: one in each namespace.

    One port everywhere, so that a packet that lands at the wrong peer is
    answered by that peer and not by its kernel. Takes the first of `ports` that
    is free in every namespace; raises `PortsTaken` when none is.
    """
    tried = []
    for port in ports:
        tried.append(port)
        stations: list[ProbeSockets] = []
        heard: set[tuple[int, int]] = set()
        try:
            for number, space in enumerate(spaces):
                witness = space.id not in heard
                stations.append(ProbeSockets(space, number, port, witness=witness))
                heard.add(space.id)
        except OSError as error:
            for station in stations:
                station.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return stations
    raise PortsTaken(f"ports {tried} are each in use in one of {len(spaces)} namespaces")


# --- sockets -----------------------------------------------------------------


def _new(family: Family, kind: int, protocol: int, make: Make) -> socket.socket:
    opened = make(_FAMILY[family], kind | socket.SOCK_CLOEXEC, protocol)
    if family == 6 and kind != socket.SOCK_RAW:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return opened


def _roomy(opened: socket.socket) -> None:
    for force, plain_option in (
        (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (_SO_SNDBUFFORCE, socket.SO_SNDBUF),  # where packets wait for their first hop
    ):
        try:
            opened.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, plain_option, _BUFFER)


@contextlib.contextmanager
def _allowance(space: NetNS) -> Iterator[None]:
    """A stack of one's own need not have what only tells more about what has come anyway."""
    try:
        yield
    except OSError as error:
        own = isinstance(space, AgentNetNS) and space.own_stack
        if not own or error.errno not in _NO_SUCH_OPTION:
            raise


def raw_socket(family: Family, protocol: int, make: Make) -> socket.socket:
    """A raw socket with room for a whole slice."""
    opened = _new(family, socket.SOCK_RAW, protocol, make)
    if family == 6:
        opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, 1)
    _roomy(opened)
    return opened


def _echoes(family: Family, make: Make) -> socket.socket:
    wanted = (icmp.ECHO_REQUEST[family], icmp.ECHO_REPLY[family], *icmp.ERRORS[family])
    protocol = socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
    opened = raw_socket(family, protocol, make)
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
        options = (_IP_RECVERR, _IP_RECVTTL, _IP_PKTINFO)
    else:
        options = (_IPV6_RECVERR, _IPV6_RECVHOPLIMIT, _IPV6_RECVPKTINFO)
    for option in options:
        opened.setsockopt(_LEVEL[family], option, 1)
    _roomy(opened)
    return opened


# --- receiving ----------------------------------------------------------------


def receive(opened: socket.socket, size: int = 2048) -> Datagram | None:
    """The next datagram, cut at `size` bytes; `None` when none is there, or only an error."""
    try:
        data, ancillary, _, sender = opened.recvmsg(size, _ANCILLARY)
    except BlockingIOError:
        return None
    except OSError:
        return None  # an ICMP error: it waits in the error queue with its story
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
    """Answer a datagram from the very address it was sent to, as a real server would."""
    if to.to is None:
        return
    if to.source.version == 4:
        info = struct.pack("=i4s4s", 0, to.to.packed, bytes(4))
        ancillary: list[tuple[int, int, Any]] = [(socket.IPPROTO_IP, _IP_PKTINFO, info)]
    else:
        info = to.to.packed + struct.pack("=i", 0)
        ancillary = [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, info)]
    with contextlib.suppress(OSError):  # no way back: then the asker sees silence, which is true
        opened.sendmsg([data], ancillary, 0, (spelled(to.source), to.port))


def pending_error(opened: socket.socket, family: Family) -> SocketError | None:
    """The next entry of the error queue; `None` when it is empty."""
    try:
        data, ancillary, _, _ = opened.recvmsg(2048, _ANCILLARY, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for level, kind, value in ancillary:
        if (level, kind) in (
            (socket.IPPROTO_IP, _IP_RECVERR),
            (socket.IPPROTO_IPV6, _IPV6_RECVERR),
        ):
            number, origin, its_type, its_code = struct.unpack_from("=IBBB", value)
            if origin not in _ORIGIN_ICMP:
                return SocketError(number, data)
            offender = value[20:24] if family == 4 else value[24:40]  # a sockaddr follows: ip(7)
            code = icmp.name(family, its_type, its_code)
            return SocketError(number, data, code, unpacked(offender))
    return SocketError(0, data)


def connected(stream: socket.socket) -> bool:
    """Whether somebody has accepted the connection that a socket has asked for."""
    try:
        stream.getpeername()
    except OSError:
        return False
    return True


def syn_ttl(accepted: socket.socket) -> int | None:
    """TTL or hop limit of the SYN that opened a connection, where the listener's stack kept it."""
    try:
        header = accepted.getsockopt(socket.IPPROTO_TCP, _TCP_SAVED_SYN, 256)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:  # as a stack has it that is not Linux's
            raise
        return None
    if not header:
        return None
    return header[8] if header[0] >> 4 == 4 else header[7]


_MANY = 4096


@lru_cache(maxsize=_MANY)
def plain(text: str) -> Address:
    """An address as a socket tells it, without its scope; an IPv4 one that IPv6 maps as itself."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=_MANY)
def spelled(address: Address) -> str:
    """An address as a socket wants it."""
    return str(address)


@lru_cache(maxsize=_MANY)
def unpacked(packed: bytes) -> Address:
    """An address of 4 or 16 bytes in network order. Raises `ValueError` for any other number."""
    return ip_address(packed)
