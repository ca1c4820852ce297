"""A client socket that shows what happens to single packets.

It returns received data, and the errors that its kernel reports. `harness.testbench.listener` shows
whether a request reaches a listener. A client also sets options that are visible on the wire: TTL,
source port and don't-fragment.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from typing import Final, Self

from harness.model.plan import Family, Protocol
from harness.model.topology import Address
from harness.probe import icmp
from harness.probe.remote import by_kernel
from harness.probe.sockets import (
    ADDRESS_FAMILIES,
    ICMP_PROTOCOLS,
    IP_LEVELS,
    RECVERR,
    RESET_ON_CLOSE,
    pending_error,
    receive,
)
from harness.testbench.listener import End
from harness.testbench.netns_view import NetnsView

BOUND: Final = 3.0
"""Bound on the time until a reply arrives, in seconds. A reply takes microseconds."""

_TTL: Final = {4: 2, 6: 16}  # IP_TTL, IPV6_UNICAST_HOPS
_MTU_DISCOVER: Final = {4: 10, 6: 23}
_MTU: Final = {4: 14, 6: 24}
_DO: Final = 2
_IPV6_DONTFRAG: Final = 62
_LONGEST: Final = 1 << 16
"""Maximum length of a datagram, in bytes."""


class Client:
    """Context manager of a socket in `caller` that is connected to the address `to`.

    `port` is the destination port. `own_port` is the source port, or the identifier of echo
    requests; with 0 the kernel chooses a source port. With `whole` no packet may be fragmented on
    the path. Raises `UserspaceStack` if only the host's kernel could guarantee this.
    """

    def __init__(
        self,
        caller: NetnsView,
        protocol: Protocol,
        to: Address,
        *,
        port: int = 0,
        own_port: int = 0,
        ttl: int | None = None,
        whole: bool = False,
    ) -> None:
        self._family: Family = 4 if to.version == 4 else 6
        self._caller, self._protocol, self._to, self._port = caller, protocol, to, port
        self._own_port, self._error, self._sequence = own_port, "", 0
        if whole:  # gVisor refuses IP_MTU_DISCOVER, or accepts it without effect
            with caller.open() as space:
                by_kernel(space)
        self._socket = self._open(caller)
        try:
            self._set(IP_LEVELS[self._family], RECVERR[self._family], 1)
            if ttl is not None:
                self._set(IP_LEVELS[self._family], _TTL[self._family], ttl)
            if whole:
                self._set(IP_LEVELS[self._family], _MTU_DISCOVER[self._family], _DO)
                if self._family == 6:
                    self._set(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
            if protocol is not Protocol.ICMP:
                self._socket.bind(("0.0.0.0" if self._family == 4 else "::", own_port))  # noqa: S104
            if protocol is not Protocol.TCP:
                self._socket.connect((str(to), port))
        except BaseException:
            self._socket.close()
            raise

    def _open(self, caller: NetnsView) -> socket.socket:
        family = ADDRESS_FAMILIES[self._family]
        match self._protocol:
            case Protocol.ICMP:
                opened = caller.socket(family, socket.SOCK_RAW, ICMP_PROTOCOLS[self._family])
            case Protocol.UDP:
                opened = caller.socket(family, socket.SOCK_DGRAM)
            case Protocol.TCP:
                opened = caller.socket(family, socket.SOCK_STREAM)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                # gVisor keeps the port of a refused connection (docs/findings.md).
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setblocking(False)
        return opened

    def _set(self, level: int, option: int, value: int) -> None:
        self._socket.setsockopt(level, option, value)

    @property
    def own_port(self) -> int:
        """The source port, or the identifier of the echo requests."""
        if self._protocol is Protocol.ICMP:
            return self._own_port
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def mtu(self) -> int:
        """The path MTU to the destination in bytes, as the caller's kernel has cached it."""
        return self._socket.getsockopt(IP_LEVELS[self._family], _MTU[self._family])

    def send(self, data: bytes = b"") -> None:
        """Send a datagram or an echo request with `data`; over TCP send a SYN.

        Raises `OSError` if the caller's kernel refuses to send; the errno is EMSGSIZE for a packet
        that is too large.
        """
        match self._protocol:
            case Protocol.ICMP:
                self._sequence += 1
                echo = icmp.echo_request(self._family, self._own_port, self._sequence, data)
                self._socket.send(echo)
            case Protocol.UDP:
                self._socket.send(data)
            case Protocol.TCP:
                code = self._socket.connect_ex((str(self._to), self._port))
                if code not in (0, errno.EINPROGRESS):
                    raise OSError(code, f"connect to {self._to} port {self._port} failed at once")

    def receive(self) -> bytes:
        """Return the next datagram, echo reply or part of a stream; wait for it up to `BOUND`.

        Raises `TimeoutError` if none arrives.
        """
        deadline = time.monotonic() + BOUND
        while (left := deadline - time.monotonic()) > 0:
            select.select([self._socket], [], [], left)
            data = self.receive_nowait()
            if data is not None:
                return data
        raise TimeoutError(
            f"{self._protocol} from {self._caller.name} to {self._to} port {self._port}: "
            f"no reply within {BOUND} s, "
            f"and {self.error() or 'no error'}"
        )

    def receive_nowait(self) -> bytes | None:
        """Return the next datagram, echo reply or part of a stream; `None` if none has arrived."""
        if self._protocol is not Protocol.ICMP:
            try:
                return self._socket.recv(_LONGEST)
            except BlockingIOError:
                return None
        datagram = receive(self._socket, _LONGEST)
        message = icmp.parse(self._family, datagram.data) if datagram else None
        if message is None or message.kind != icmp.ECHO_REPLY[self._family]:
            return None
        return message.payload if message.identifier == self._own_port else None

    def error(self) -> str:
        """Return the name of the error that the caller's kernel has reported so far.

        Names of ICMP errors are those of `harness.probe.icmp`. The name is `reset` for a refused
        connection, and empty if there is no error.
        """
        while not self._error and (error := pending_error(self._socket, self._family)):
            self._error = error.code
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
            self._error = self._error or "reset"
        return self._error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def round_trip(
    caller: NetnsView,
    other: NetnsView,
    at: Address,
    data: bytes,
    *,
    port: int = 0,
    by: End | None = None,
) -> tuple[bytes, bytes]:
    """Send a datagram to `other`, which sends it back; return it as received at each end.

    The datagram goes to the address `at` and to `port`, or to a port that the kernel chooses. With
    `by` it goes to that published port instead. Raises `TimeoutError` if it does not arrive.
    """
    with other.socket(ADDRESS_FAMILIES[at.version], socket.SOCK_DGRAM) as answering:
        answering.settimeout(BOUND)
        answering.bind((str(at), port))
        to, its_port = by or (at, answering.getsockname()[1])
        with Client(caller, Protocol.UDP, to, port=its_port) as call:
            call.send(data)
            arrived, sender = answering.recvfrom(_LONGEST)
            answering.sendto(arrived, sender)
            return arrived, call.receive()
