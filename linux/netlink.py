"""Netlink sockets that send many requests in one system call.

The kernel handles the messages of one `sendmsg` in order and reports each message that fails. A
whole batch of requests therefore costs two system calls. An error still names the failed request,
and has the kernel's explanation (extended acknowledgements, netlink(7)).

pyroute2 is not used because it waits for the reply to each request, and because its import costs
more than starting a container.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Self

from linux.netns import NetNS

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
NLM_F_DUMP: Final = 0x300

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200
_NLM_F_DUMP_INTR: Final = 0x10
_NLMSGERR_ATTR_MSG: Final = 1

_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12

_NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF
_HEADER: Final = struct.Struct("=IHHII")
_ATTR: Final = struct.Struct("=HH")
_RECEIVE: Final = 1 << 16
"""Size of the receive buffer.

It is larger than the kernel's largest message, 32 KiB (netlink_dump in af_netlink.c), and small
enough that malloc(3) does not map and unmap memory for each receive.
"""
_FEW: Final = 64
"""Number of requests whose errors fit the default receive buffer."""
_SHORT: Final = 1 << 16
"""Number of bytes that fit the default send buffer."""
_LARGE: Final = 4 << 20


class NetlinkError(OSError):
    """The kernel refused a request; `what` describes that request."""

    def __init__(self, errno: int, what: str, explanation: str = "") -> None:
        reason = os.strerror(errno) + (f" ({explanation})" if explanation else "")
        super().__init__(errno, f"{what}: {reason}")
        self.what = what
        self.explanation = explanation

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the constructor's arguments; `OSError` itself would pass the message as `what`."""
        return type(self), (self.errno, self.what, self.explanation), self.__dict__


class Request(NamedTuple):
    """A netlink message: type, flags in addition to REQUEST and ACK, body, and a description."""

    kind: int
    flags: int
    body: bytes
    what: str


def attr(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    length = 4 + len(payload)
    return _ATTR.pack(length, kind) + payload + bytes(-length % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """Encode an attribute whose payload is other attributes."""
    return attr(kind | _NESTED, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    """Encode an attribute of one byte."""
    return attr(kind, struct.pack("=B", value))


def u32(kind: int, value: int) -> bytes:
    """Encode an attribute of four bytes in host order."""
    return attr(kind, struct.pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    """Encode an attribute of four bytes in network order; negative values in two's complement."""
    return attr(kind, struct.pack(">I", value & 0xFFFFFFFF))


def text(kind: int, value: str) -> bytes:
    """Encode an attribute that is a NUL-terminated string."""
    return attr(kind, value.encode() + b"\0")


def number(payload: bytes) -> int:
    """Decode an unsigned number in host byte order, of any length."""
    return int.from_bytes(payload, sys.byteorder)


def attributes(
    data: bytes, offset: int = 0, only: Collection[int] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes of a message body from `offset` on, as (type, payload).

    With `only`, yield just the attributes of these types. This saves time: a link has fifty
    attributes, and each payload is copied.
    """
    unpack, end = _ATTR.unpack_from, len(data)
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        if length < 4 or offset + length > end:
            raise ValueError(f"malformed netlink attribute of length {length} at {offset}")
        kind &= _TYPE_MASK
        if only is None or kind in only:
            yield kind, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


class Netlink:
    """A netlink socket inside one namespace.

    The socket is opened in `netns`, by default the caller's namespace, and threads in any namespace
    may use it. With `fd` the object takes over an open socket.
    """

    def __init__(
        self,
        netns: NetNS | None = None,
        *,
        protocol: int = NETLINK_ROUTE,
        fd: int | None = None,
    ) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        if fd is not None:
            self._socket = socket.socket(fileno=fd)
        elif netns is None:
            self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        else:
            self._socket = netns.socket(socket.AF_NETLINK, kind, protocol)
        strict = (_NETLINK_GET_STRICT_CHK,) if protocol == NETLINK_ROUTE else ()
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, *strict):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:  # user-space network stacks (gVisor) have none
                    self._socket.close()
                    raise
        self._sequence = 0
        self._roomy = False

    def send(self, requests: Iterable[Request], *, missing_ok: bool = False) -> None:
        """Send a batch of requests and wait until the kernel has handled all of them.

        A failure does not stop the later requests. Afterwards the first failure is raised as
        `NetlinkError`. With `missing_ok` a missing object (ENODEV, ENOENT, ESRCH, EADDRNOTAVAIL) is
        not a failure.
        """
        batch = list(requests)
        if not batch:
            return
        for error in self._transact(batch, answered=len(batch) - 1):
            if not (missing_ok and error.errno in _MISSING):
                raise error

    def send_transaction(self, requests: Sequence[Request]) -> None:
        """Send an nfnetlink transaction: begin marker, requests, commit marker.

        The kernel replies to a marker only when it refuses the transaction as a whole. If a request
        fails, nothing is changed, and the first failure is raised as `NetlinkError`.
        """
        begin, *inner, commit = range(len(requests))
        if not inner:
            return
        for error in self._transact(requests, answered=inner[-1], final={begin, commit}):
            raise error

    def _transact(
        self, batch: Sequence[Request], *, answered: int, final: Collection[int] = ()
    ) -> list[NetlinkError]:
        """Send a batch and return the errors of its requests, up to the reply to one of them.

        The kernel sends errors in order, also for requests without the flag ACK. One
        acknowledgement therefore shows that no further errors follow, and the replies to a batch of
        any length fit the receive buffer. After an error of a request in `final` no reply follows
        either.
        """
        first = self._sequence + 1
        self._sequence += len(batch)
        message = b"".join(
            _message(request, sequence, NLM_F_ACK if sequence == first + answered else 0)
            for sequence, request in enumerate(batch, first)
        )
        if len(batch) > _FEW or len(message) > _SHORT:
            self._make_room()
        self._socket.send(message)
        errors: list[NetlinkError] = []
        while True:
            for kind, flags, sequence, body in self._messages():
                index = sequence - first
                if kind != _NLMSG_ERROR or not 0 <= index < len(batch):
                    continue  # left by an interrupted request
                if error := _error(batch[index], flags, body):
                    errors.append(error)
                if index == answered or index in final:
                    return errors

    def get(self, requests: Sequence[Request]) -> list[bytes]:
        """Send several queries at once, each with one reply, and return the bodies in order.

        Raises `NetlinkError` for the first query that fails.
        """
        if not requests:
            return []
        first = self._sequence + 1
        self._sequence += len(requests)
        queries = (_message(item, first + number, 0) for number, item in enumerate(requests))
        self._socket.send(b"".join(queries))
        answers: list[bytes] = []
        while len(answers) < len(requests):
            for kind, flags, sequence, body in self._messages():
                if not 0 <= sequence - first < len(requests):
                    continue
                if kind == _NLMSG_ERROR and (
                    error := _error(requests[sequence - first], flags, body)
                ):
                    raise error
                answers.append(body)
        return answers

    def ask(self, request: Request) -> list[bytes]:
        """Send one query and return the bodies of all replies, in order.

        If a change interrupts a dump (NLM_F_DUMP_INTR), the dump is repeated, so that the result is
        one consistent state.
        """
        acknowledge = 0 if request.flags & NLM_F_DUMP else NLM_F_ACK
        while True:
            self._sequence += 1
            self._socket.send(_message(request, self._sequence, acknowledge))
            answers: list[bytes] = []
            ended = interrupted = False
            while not ended:
                for kind, flags, sequence, body in self._messages():
                    if sequence != self._sequence:
                        continue
                    interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                    ended = kind in (_NLMSG_DONE, _NLMSG_ERROR)
                    if kind == _NLMSG_ERROR and (error := _error(request, flags, body)):
                        raise error
                    if not ended:
                        answers.append(body)
            if not interrupted:
                return answers

    def dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        """Return all objects of a kind: the bodies of the replies to a dump."""
        return self.ask(Request(kind, NLM_F_DUMP, body, what))

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_RECEIVE)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3

    def join(self, group: int) -> None:
        """Subscribe to a multicast group of the kernel's notifications."""
        self._make_room()
        if not self._socket.getsockname()[0]:
            self._socket.bind((0, 0))  # an unbound socket receives no notifications
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def notifications(self) -> list[tuple[int, bytes]]:
        """Return the pending notifications as (type, body), without waiting.

        Raises `OSError` (ENOBUFS) once if notifications were lost because the socket's buffer was
        full.
        """
        found: list[tuple[int, bytes]] = []
        self._socket.setblocking(False)
        try:
            while True:
                found += [(kind, body) for kind, _, _, body in self._messages()]
        except BlockingIOError:
            return found
        finally:
            self._socket.setblocking(True)

    def _make_room(self) -> None:
        """Enlarge the socket's buffers for long batches and for the replies to them."""
        if not self._roomy:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LARGE)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGE)
            self._roomy = True

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_MISSING: Final = frozenset({2, 3, 19, 99})  # ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL


def _message(request: Request, sequence: int, flags: int) -> bytes:
    length = _HEADER.size + len(request.body)
    flags |= NLM_F_REQUEST | request.flags
    head = _HEADER.pack(length, request.kind, flags, sequence, 0)
    return head + request.body + bytes(-length % 4)


def _error(request: Request, flags: int, body: bytes) -> NetlinkError | None:
    """Return the error in the body of a reply, or `None` if the reply is an acknowledgement."""
    code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
    if not code:
        return None
    explanation = b""
    if flags & _NLM_F_ACK_TLVS:
        skip = 20 if flags & _NLM_F_CAPPED else 4 + number(body[4:8])
        explanation = dict(attributes(body, (skip + 3) & ~3)).get(_NLMSGERR_ATTR_MSG, b"")
    return NetlinkError(code, request.what, explanation.rstrip(b"\0").decode(errors="replace"))
