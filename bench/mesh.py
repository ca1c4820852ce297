"""Prober of every ordered pair of up to a thousand members of one bridge, by ICMP over IPv4.

The harness's prober can send any probe. This prober sends the same probe a million times, so it
writes and reads packets in slots of a fixed size. A cell is an ordered pair. Its outcome is two
bytes: the TTL of the request when it reached the target, and the TTL of the reply when it reached
the source. Every cell is probed; none is inferred from another.

**Neighbours are resolved once for all members.** A broadcast reaches all ports of a bridge. With an
ARP broadcast for each of a million pairs, each of the thousand members would receive a million
frames. Therefore one ARP probe (RFC 5227) on the bridge resolves each member, and the other members
have the result as a permanent neighbour entry during the mesh. Permanent entries do not count
towards `gc_thresh3`, a limit for the whole machine. If a member sends no ARP reply to that probe,
the kernel resolves it as usual. The mesh therefore does not observe whether the members of *each
pair* can resolve each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final, NamedTuple, Self

from harness.model.plan import Cell, Observation, Outcome, Protocol
from harness.probe.quiescence import Quiet
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, Request
from linux.netns import NetNS

_ASKED: Final = struct.Struct("!BBHHH8sIIII")
"""An echo request: type, code, checksum, identifier, sequence; nonce, source, target.

The complement follows each number, so that all requests have the same checksum.
"""
_CAME: Final = struct.Struct("!B7xBx2x4s4xBx2x2x2x8sI4xI4x")
"""A received message: TTL and sender from its IP header, then type, nonce, numbers."""
_NO_OPTIONS: Final = 0x45
_REQUEST, _REPLY = 8, 0
_ALL_ONES: Final = 0xFFFFFFFF
_AT_ONCE: Final = 64
"""Number of packets that a source sends before it receives replies."""
_SOURCES: Final = 32
"""Number of sources after which the prober reads all sockets; each source sends to all of them."""
_ROOM: Final = 1 << 21

_ARP: Final = struct.Struct("!6s6sHHHBBH6s4s6s4s")
_ARP_TYPE, _ARP_REQUEST, _ARP_REPLY = 0x0806, 1, 2
_FOUND_WITHIN: Final = 0.2
"""Seconds to wait for an ARP reply; without a reply the kernel resolves the member."""


class Member(NamedTuple):
    """A member of the mesh: its name, namespace and address on the bridge."""

    name: str
    space: NetNS
    address: IPv4Address


class Mesh(Mapping[Cell, Observation]):
    """Outcomes of every ordered pair of members, and of each member with itself."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.number = {member.name: at for at, member in enumerate(members)}
        self.heard = bytearray(len(members) ** 2)
        """TTL of each request at its target; 0 if it did not arrive."""
        self.answered = bytearray(len(members) ** 2)
        """TTL of each reply at its source; 0 if it did not arrive."""
        self.strays: dict[int, str] = {}
        """Misdirected packets in words, by the number of their cell."""

    def kept(self, ttl: int) -> int:
        """Return the number of cells whose request and reply both arrived with this TTL."""
        if self.strays:
            return sum(
                self.heard[at] == self.answered[at] == ttl and at not in self.strays
                for at in range(len(self.heard))
            )
        both = int.from_bytes(self.heard) ^ int.from_bytes(self.answered)
        if not both:
            return self.heard.count(ttl)
        return sum(h == a == ttl for h, a in zip(self.heard, self.answered, strict=True))

    def __getitem__(self, cell: Cell) -> Observation:
        source, target = self.number[cell.source], self.number[cell.target]
        if (cell.protocol, cell.family) != (Protocol.ICMP, 4):
            raise KeyError(cell)
        at = source * len(self.members) + target
        seen, ttl = self.heard[at] or None, self.answered[at] or None
        outcome = Outcome.REPLY if seen and ttl else Outcome.DROPPED
        detail = self.strays.get(at, "")
        if detail:
            outcome = Outcome.WRONG_PEER
        elif not seen:
            detail = "the request reached no witness"
        return Observation(
            outcome, ttl=ttl, seen_ttl=seen, seen_from=cell.source if seen else None, detail=detail
        )

    def __iter__(self) -> Iterator[Cell]:
        for source in self.members:
            for target in self.members:
                yield Cell(source.name, target.name, Protocol.ICMP, 4)

    def __len__(self) -> int:
        return len(self.heard)


def ask(members: Sequence[Member], *, host: NetNS, bridge: str, control: NetNS) -> Mesh:
    """Probe every pair once, with a new `Prober`, and return the outcomes."""
    with Prober(members, host=host, bridge=bridge, control=control) as prober:
        return prober.ask()


class Prober:
    """Prober for any number of meshes, with known MAC addresses and an open socket per member.

    `bridge` is the members' bridge in the `host`. `control` is the namespace of control packets, as
    in `quiescence.Quiet`. Opening a prober takes as long as a mesh of thirty members, and so does
    closing it.
    """

    def __init__(
        self, members: Sequence[Member], *, host: NetNS, bridge: str, control: NetNS
    ) -> None:
        self._members, self._host, self._control = members, host, control
        self._introduced = introduced(members, host=host, bridge=bridge)

    def ask(self) -> Mesh:
        """Probe every pair and return the outcomes; a reply is missing once the host is quiet."""
        asking = _Asking(self._members, self._sockets, self._out, self._in)
        asking.send()
        if not asking.complete:
            with Quiet(self._control, [self._host]) as quiet:
                while not (quiet.reached() and not asking.gather()):
                    pass
        return asking.mesh

    def __enter__(self) -> Self:
        to = [member.address for member in self._members]
        self._out, self._in = Batch(len(to), _ASKED.size, to=to), Batch(256, _CAME.size)
        self._sockets: list[socket.socket] = []
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._introduced)
            for member in self._members:
                opened = member.space.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
                self._sockets.append(stack.enter_context(opened))
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


class _Asking:
    """A pass over the mesh: the sockets of all members, and the outcomes so far."""

    def __init__(
        self, members: Sequence[Member], sockets: Sequence[socket.socket], out: Batch, into: Batch
    ) -> None:
        self.mesh = Mesh(members)
        self._nonce = os.urandom(8)
        self._senders = [member.address.packed for member in members]
        self._sockets, self._out, self._in = sockets, out, into
        self._prepare()

    def _prepare(self) -> None:
        packets = [
            _ASKED.pack(_REQUEST, 0, 0, 0, 0, self._nonce, 0, _ALL_ONES, at, at ^ _ALL_ONES)
            for at in range(len(self.mesh.members))
        ]
        checksum = _checksum(packets[0]).to_bytes(2, "big")
        packets = [packet[:2] + checksum + packet[4:] for packet in packets]
        self._out.data[:] = b"".join(packets)

    @property
    def complete(self) -> bool:
        """True if every request and every reply has arrived."""
        return 0 not in self.mesh.heard and 0 not in self.mesh.answered

    def send(self) -> None:
        """Send all requests, source by source, and receive packets in between."""
        total = len(self._sockets)
        for source, opened in enumerate(self._sockets):
            self._ask_as(source)
            sent = 0
            while sent < total:
                try:
                    sent += self._out.send(opened.fileno(), sent, min(total, sent + _AT_ONCE))
                except OSError:  # no route: the target does not receive the request
                    sent += 1
                self._hear(source)
            if source % _SOURCES == _SOURCES - 1:
                self.gather()
        self.gather()

    def _ask_as(self, source: int) -> None:
        number = struct.pack("!II", source, source ^ _ALL_ONES)
        total = len(self._sockets)
        for offset, octet in enumerate(number, 16):
            self._out.data[offset :: _ASKED.size] = bytes((octet,)) * total

    def gather(self) -> bool:
        """Receive all packets that have arrived; return True if there was any."""
        heard = [self._hear(place) for place in range(len(self._sockets))]
        return any(heard)

    def _hear(self, place: int) -> bool:
        any_packet, total = False, len(self._sockets)
        mesh, nonce, senders = self.mesh, self._nonce, self._senders
        descriptor = self._sockets[place].fileno()
        while slots := self._in.receive(descriptor):
            any_packet = True
            for version, ttl, sender, kind, own, source, target in _CAME.iter_unpack(slots):
                if own != nonce or version != _NO_OPTIONS:
                    continue
                cell = source * total + target
                if kind == _REQUEST and target == place and sender == senders[source]:
                    mesh.heard[cell] = ttl
                elif kind == _REPLY and source == place and sender == senders[target]:
                    mesh.answered[cell] = ttl
                else:
                    name = mesh.members[place].name
                    what = "the request" if kind == _REQUEST else "a reply"
                    mesh.strays[cell] = f"{what} arrived at {name} from {IPv4Address(sender)}"
        return any_packet


# --- neighbour resolution -------------------------------------------------------------


@contextlib.contextmanager
def introduced(members: Sequence[Member], *, host: NetNS, bridge: str) -> Iterator[None]:
    """Give every member permanent neighbour entries of all members that reply to ARP.

    The entries exist while the body of the `with` statement runs.
    """
    macs = found(members, host=host, bridge=bridge)
    known: dict[int, list[Request]] = {}
    told: list[tuple[NetNS, int]] = []
    try:
        for member in members:
            with Netlink(member.space) as netlink:
                index = _link(netlink, member.address)
                if index is None:
                    continue
                if index not in known:
                    known[index] = [
                        rtnetlink.add_neighbour(index, address, mac)
                        for address, mac in macs.items()
                    ]
                told.append((member.space, index))
                netlink.send(known[index])
        yield
    finally:
        for space, index in told:
            with Netlink(space) as netlink:
                netlink.send(_forget(index, macs), missing_ok=True)


def _forget(index: int, addresses: Iterable[IPv4Address]) -> list[Request]:
    return [rtnetlink.del_neighbour(index, address) for address in addresses]


def _link(netlink: Netlink, address: IPv4Address) -> int | None:
    own = {item.address.ip: item.ifindex for item in rtnetlink_dump.addresses(netlink)}
    return own.get(address)


def found(members: Sequence[Member], *, host: NetNS, bridge: str) -> dict[IPv4Address, str]:
    """Return the MAC address of each member that replies to an ARP probe on the bridge.

    An ARP probe (RFC 5227) creates no neighbour entry at the member that receives it.
    """
    with host.entered(), Netlink() as netlink:
        own = rtnetlink.mac_bytes(rtnetlink_dump.link(netlink, bridge).mac)
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP_TYPE))
    macs: dict[IPv4Address, str] = {}
    with opened:
        opened.bind((bridge, _ARP_TYPE))
        for member in members:
            opened.send(_probe(own, member.address))
            while select.select([opened], [], [], _FOUND_WITHIN)[0]:
                answer = _ARP.unpack_from(opened.recv(1 << 11))
                if answer[7] == _ARP_REPLY and answer[0] == own:
                    macs[IPv4Address(answer[9])] = rtnetlink.mac_text(answer[8])
                if member.address in macs:
                    break
    return macs


def _probe(own: bytes, address: IPv4Address) -> bytes:
    ethernet = b"\xff" * 6, own, _ARP_TYPE
    return _ARP.pack(
        *ethernet, 1, 0x0800, 6, 4, _ARP_REQUEST, own, bytes(4), bytes(6), address.packed
    )


def _checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


_libc = ctypes.CDLL(None, use_errno=True)
_NAME: Final = struct.Struct("=HH4s8x")
"""`struct sockaddr_in`; a raw socket ignores the port."""


class _Header(ctypes.Structure):
    """The structure `msghdr` of recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.c_void_p),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """The structure `mmsghdr` of recvmmsg(2): the header, and the length of the packet."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


class _Vector(ctypes.Structure):
    """The structure `iovec` of readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Batch:
    """Buffer of `count` slots of `size` bytes; with `to`, slot n is sent to the nth address."""

    def __init__(self, count: int, size: int, *, to: Sequence[IPv4Address] = ()) -> None:
        self.data = bytearray(count * size)
        """The bytes of all slots, one after the other."""
        self._size, self._count = size, count
        base = ctypes.addressof((ctypes.c_char * len(self.data)).from_buffer(self.data))
        self._vectors = (_Vector * count)(*(_Vector(base + at * size, size) for at in range(count)))
        self._nothing = bytes(len(self.data))
        self._names = ctypes.create_string_buffer(
            b"".join(_NAME.pack(socket.AF_INET, 0, item.packed) for item in to)
        )
        self._messages = (_Message * count)()
        for at, message in enumerate(item.header for item in self._messages):
            message.vector = ctypes.addressof(self._vectors[at])
            message.vector_length = 1
            if to:
                message.name = ctypes.addressof(self._names) + at * _NAME.size
                message.name_length = _NAME.size

    def send(self, descriptor: int, first: int, last: int) -> int:
        """Send the packets of slots `first` to `last - 1`, and return how many were sent.

        Raises `OSError`.
        """
        start = ctypes.byref(self._messages, first * ctypes.sizeof(_Message))
        sent: int = _libc.sendmmsg(descriptor, start, last - first, 0)
        if sent < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"sendmmsg: {os.strerror(number)}")
        return sent

    def receive(self, descriptor: int) -> memoryview:
        """Return the datagrams that have arrived, one per slot; an empty view if there are none.

        A shorter datagram is padded with zeros, a longer one is cut off. Raises `OSError`.
        """
        self.data[:] = self._nothing
        got = _libc.recvmmsg(descriptor, self._messages, self._count, socket.MSG_DONTWAIT, None)
        if got < 0:
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                return memoryview(b"")
            raise OSError(number, f"recvmmsg: {os.strerror(number)}")
        return memoryview(self.data)[: got * self._size]
