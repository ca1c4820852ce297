"""Listeners in namespaces, and requests to them, which are delivered, refused or lost.

A request is a TCP connection or a UDP datagram. A request that is neither delivered nor refused
raises an error. For a delivered request the caller gets two source addresses: that of the client's
socket, and that which the listener saw. The two differ if the address was translated.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import select
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, Literal, NamedTuple, Self

from harness.model.plan import Family
from harness.model.topology import Address
from harness.probe import icmp
from harness.probe.sockets import ADDRESS_FAMILIES, ICMP_PROTOCOLS, RESET_ON_CLOSE, connected
from harness.testbench.netns_view import NetnsView
from harness.world.service_protocols import TCP_PORTS, UDP_PORTS

Transport = Literal["tcp", "udp"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("tcp", "udp")

BOUND: Final = 3.0
"""Bound on the time until a request is delivered, replied to or refused, in seconds."""

ANYWHERE: Final[dict[int, Address]] = {4: IPv4Address(0), 6: IPv6Address(0)}
EVERYBODY: Final = (
    IPv4Address("255.255.255.255"),
    IPv4Address("224.0.0.1"),
    IPv6Address("ff02::1"),
)
"""Limited broadcast, all hosts (RFC 1112), all nodes (RFC 4291)."""

_SOON: Final = 0.001
"""Seconds between two checks whether a connection is established."""

SOCKET_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_own_ports = itertools.cycle(range(20_000, 32_768))
"""Source ports of clients, below the ephemeral range.

While conntrack still has the last flow of a port, the kernel translates a reused port to another
one if both requests reach the same listener.
"""
_REFUSED: Final = frozenset(
    {
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH),
        *(errno.EADDRNOTAVAIL, errno.EINVAL),
    }
)
"""Errors of a request that the other side refused or reset, or that the client's kernel refused."""

End = tuple[Address, int]
"""Address and port."""


class Exchange(NamedTuple):
    """Source address and port of a request, at both ends.

    `own` is the address of the client's socket. `seen` is the source that the listener received.
    """

    own: End
    seen: End


class Listener:
    """Context manager of a listener in a namespace; with `port` 0 the kernel chooses the port.

    The listener is bound to `address`, or to all addresses of `family`. Raises `OSError`
    (EADDRINUSE) if the port is in use.
    """

    def __init__(
        self,
        view: NetnsView,
        transport: Transport,
        *,
        family: Family = 4,
        address: Address | None = None,
        port: int = 0,
    ) -> None:
        self.transport = transport
        self.address = address or ANYWHERE[family]
        self._socket = _socket(view, transport, self.address)
        try:
            self._socket.bind((str(self.address), port))
            if transport == "tcp":
                self._socket.listen()
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]

    def reached_from(
        self, caller: NetnsView, *, at: Address | None = None, port: int = 0, answered: bool = False
    ) -> Exchange | None:
        """Send a request to the listener from a namespace; return the source, `None` if refused.

        The request goes to `at` and `port`, or to the listener's own address and port. An accepted
        connection that is closed without data counts as refused: a user-space relay does this if it
        finds no listener inside.

        Raises `TimeoutError` if the request is neither delivered nor refused. With `answered` it is
        also raised if the reply does not come from the address to which the request was sent. A
        request is recognised by its data, because a user-space relay may retry an earlier one
        (rootlessport retries ten times).
        """
        target, nonce = at or self.address, os.urandom(16)
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(_socket(caller, self.transport, target))
            _bind_fresh_port(client, target)
            taken: dict[socket.socket, End] = {}
            sent = False
            try:
                with contextlib.suppress(BlockingIOError):
                    client.connect((str(target), port or self.port))
                if self.transport == "udp":
                    client.send(nonce)
                deadline = time.monotonic() + BOUND
                while (left := deadline - time.monotonic()) > 0:
                    # On a path with several legs the last leg is established first.
                    unsent = taken and not sent
                    wait = _SOON if unsent else left
                    ready, _, _ = select.select([self._socket, client, *taken], [], [], wait)
                    if self._socket in ready and self.transport == "tcp":
                        taken |= {stack.enter_context(one): end for one, end in self._accepted()}
                    sent = sent or (bool(taken) and _send_if_connected(client, nonce))
                    for payload, seen, end in self._arrivals(ready, taken):
                        if payload == nonce:
                            if answered:
                                self._answer(client, seen, end, nonce)
                            return Exchange(_end(client.getsockname()), end)
                    if client in ready and self.transport == "tcp" and _is_closed(client):
                        return None
                    if number := client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        raise OSError(number, os.strerror(number))
            except OSError as error:
                if error.errno in _REFUSED:
                    return None
                raise
        raise TimeoutError(
            f"{self.transport} from {caller.name} to {target} port {port or self.port} was neither "
            f"delivered nor refused within {BOUND} s; something on the path drops or diverts it"
        )

    def delivered(
        self, calls: Iterable[tuple[NetnsView, Address, int]], quiet: Callable[[], None]
    ) -> list[str]:
        """Send several requests at the same time; return the delivered ones as text.

        Each item of `calls` is a source namespace, an address and a port. A request is delivered if
        it has arrived when `quiet`, the scene's method `settle`, returns.
        """
        with contextlib.ExitStack() as stack:
            made: dict[bytes, tuple[str, socket.socket]] = {}
            for caller, address, port in calls:
                client = stack.enter_context(_socket(caller, self.transport, address))
                nonce = os.urandom(16)
                made[nonce] = f"{caller.name} to {address} port {port}", client
                try:
                    with contextlib.suppress(BlockingIOError):
                        client.connect((str(address), port))
                    if self.transport == "udp":
                        client.send(nonce)
                except OSError as error:
                    if error.errno not in _REFUSED:
                        raise
            quiet()
            if self.transport == "udp":
                return [made[payload][0] for payload, _ in self.pending() if payload in made]
            accepted = [stack.enter_context(connection) for connection, _ in self._accepted()]
            open_calls = {nonce: client for nonce, (_, client) in made.items() if connected(client)}
            if not accepted or not open_calls:
                return []
            # Only their data identifies connections: a user-space relay accepts connections that
            # lead elsewhere, and may retry an earlier one (rootlessport does, ten times).
            for nonce, client in open_calls.items():
                _send_if_connected(client, nonce)
            quiet()
            sent = {_received(connection) for connection in accepted}
            return [made[nonce][0] for nonce in open_calls if nonce in sent]

    def _accepted(self) -> Iterator[tuple[socket.socket, End]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, sender = self._socket.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                yield accepted, _end(sender)

    def _arrivals(
        self, ready: Collection[object], taken: dict[socket.socket, End]
    ) -> Iterator[tuple[bytes, socket.socket, End]]:
        """Yield data, socket and sender of each arrival; each connection is read only once."""
        if self.transport == "udp":
            with contextlib.suppress(BlockingIOError):
                data, sender = self._socket.recvfrom(1024)
                yield data, self._socket, _end(sender)
        for connection in [item for item in taken if item in ready]:
            yield _received(connection), connection, taken.pop(connection)

    def receive(self) -> tuple[bytes, End]:
        """Return the next datagram and its sender; raise `TimeoutError` if none arrives."""
        if not select.select([self._socket], [], [], BOUND)[0]:
            raise TimeoutError(f"nothing arrived at port {self.port} within {BOUND} s")
        data, sender = self._socket.recvfrom(1 << 16)
        return data, _end(sender)

    def pending(self) -> Iterator[tuple[bytes, End]]:
        """Yield every datagram that has arrived so far, with its sender."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, sender = self._socket.recvfrom(1 << 16)
                yield data, _end(sender)

    def send(self, end: End, data: bytes) -> None:
        """Send a datagram to `end` from the listener's own port."""
        self._socket.sendto(data, (str(end[0]), end[1]))

    def _answer(
        self, client: socket.socket, seen: socket.socket, caller: End, payload: bytes
    ) -> None:
        """Send a reply to a request.

        Raises `TimeoutError` unless the client receives the reply from the address that it sent to.
        """
        ends = f"from {_end(client.getsockname())} to {_end(client.getpeername())}"
        instead = f"no reply within {BOUND} s"
        try:
            if self.transport == "udp":
                self.send(caller, payload)
            else:
                seen.send(payload)
            if select.select([client], [], [], BOUND)[0]:
                came = client.recv(1024)
                if came == payload:
                    return
                instead = repr(came) if came else "no reply before the connection closed"
        except OSError as error:
            instead = f"no reply before the connection closed ({error.strerror})"
        raise TimeoutError(
            f"{self.transport} {ends} was delivered as from {caller}, "
            f"but the client received {instead}"
        )

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_port(view: NetnsView, transport: Transport) -> int:
    """Return a port that is free in a namespace."""
    with Listener(view, transport) as listener:
        return listener.port


def own_port() -> int:
    """Return a source port for crafted packets that no request has used lately."""
    return next(_own_ports)


def ask_echo_service(caller: NetnsView, address: Address, transport: Transport) -> Exchange:
    """Ask the world's echo service at `address` which source address it sees.

    Raises `OSError` if the service cannot be reached.
    """
    port = (TCP_PORTS if transport == "tcp" else UDP_PORTS)["echo"]
    with _socket(caller, transport, address) as client:
        client.settimeout(BOUND)
        client.connect((str(address), port))
        if transport == "udp":
            client.send(b"who am I?")
        sent = b""
        while not sent.endswith(b"\n"):
            data = client.recv(4096)
            if not data:
                raise ConnectionError(
                    f"the echo service at {address} closed the connection after {sent!r}"
                )
            sent += data
        return Exchange(_end(client.getsockname()), _end(json.loads(sent)["you"]))


def broadcast(view: NetnsView, addresses: Iterable[Address], *, port: int, payload: bytes) -> int:
    """Try to send a datagram, an echo request and a SYN to each of `addresses`.

    The datagram and the echo request carry `payload`; `port` is for datagrams and SYNs. The same
    packets also go to `EVERYBODY` through every interface of the namespace. Returns the number of
    packets that the sending kernel accepted.
    """
    targets = [(address, "") for address in addresses]
    targets += [(address, link) for address in EVERYBODY for link in view.links()]
    accepted = 0
    for address, link in targets:
        family: Family = 4 if address.version == 4 else 6
        for kind, protocol, data, to_port in (
            (socket.SOCK_DGRAM, 0, payload, port),
            (socket.SOCK_RAW, ICMP_PROTOCOLS[family], icmp.echo_request(family, 1, 1, payload), 0),
            (socket.SOCK_STREAM, 0, b"", port),
        ):
            with (
                contextlib.suppress(OSError),  # refused: not counted
                view.socket(ADDRESS_FAMILIES[family], kind, protocol) as opened,
            ):
                opened.setblocking(False)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                if link:  # send by this interface even without a route
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
                if kind == socket.SOCK_STREAM:
                    with contextlib.suppress(BlockingIOError):
                        opened.connect((str(address), to_port))
                else:
                    opened.sendto(data, (str(address), to_port))
                accepted += 1
    return accepted


# --- sockets ---------------------------------------------------------------------


def _socket(view: NetnsView, transport: Transport, towards: Address) -> socket.socket:
    """Return a non-blocking socket of the address family of `towards`."""
    opened = view.socket(ADDRESS_FAMILIES[towards.version], SOCKET_KINDS[transport])
    opened.setblocking(False)
    if towards.version == 6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if transport == "tcp":
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    return opened


def _bind_fresh_port(client: socket.socket, towards: Address) -> None:
    """Bind a source port that was not used recently; the kernel might choose the same port twice.

    Two requests from one port to two addresses that NAT maps to one listener would have equal reply
    tuples. The kernel then also translates the source port of the second request (nf_nat_core.c,
    null bindings).
    """
    for port in _own_ports:
        try:
            client.bind((str(ANYWHERE[towards.version]), port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return


def _send_if_connected(client: socket.socket, payload: bytes) -> bool:
    """Send if the connection is established; leave errors for the caller to query."""
    if not connected(client):
        return False
    with contextlib.suppress(OSError):  # the connection has ended
        client.send(payload)
    return True


def _is_closed(client: socket.socket) -> bool:
    """Return True if a connection was established and then closed without any data."""
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def _received(connection: socket.socket) -> bytes:
    """Return the data that has arrived on a connection so far."""
    with contextlib.suppress(OSError):
        return connection.recv(1024)
    return b""


def _end(name: Any) -> End:
    return ip_address(str(name[0]).partition("%")[0]), int(name[1])
