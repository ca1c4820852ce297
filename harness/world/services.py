"""Process that runs the services of the internet, and of any other namespace.

The caller opens the sockets inside the namespaces and forks one process, which serves all of them.
The process records every visit and every DNS query, and returns the record on request. It ends with
the thread that started it.

Before the process returns the record, it handles everything that has reached the sockets. The
record therefore contains every delivered packet.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, NoReturn, Self

from harness.model.topology import Address, Topology
from harness.world.dns import DnsQuery, Zone
from harness.world.host import detach_from_parent, quiet_fork
from harness.world.rpc import LAST_WORDS, Channel, FailedError
from harness.world.service_protocols import (
    LISTEN,
    TCP_PORTS,
    UDP_PORTS,
    Dialogue,
    ServiceClient,
    chargen,
    discard,
    dns_datagram,
    dns_stream,
    echo,
    echo_datagram,
    http,
)
from linux.netns import NetNS

Transport = Literal["tcp", "udp"]

PATIENCE: Final = 5.0
"""Time in seconds within which the services process must return its record."""

_PORTS: Final[dict[Transport, dict[str, int]]] = {"tcp": TCP_PORTS, "udp": UDP_PORTS}
_OWN: Final = frozenset(UDP_PORTS.values())
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_BACKLOG: Final = 512
_LONGEST: Final = 1 << 16


class ServicesDied(Exception):
    """The services process has ended; the message has its exit status and the end of its output."""


@dataclass(frozen=True, slots=True)
class ServiceVisit:
    """A TCP connection or a datagram that reached a service.

    `at` is in seconds since the epoch, `namespace` is the name of the service's namespace. `client`
    is the address and port that the service saw, `address` the service's own address.
    """

    at: float
    namespace: str
    transport: Transport
    client: tuple[str, int]
    service: str
    address: str


@dataclass(frozen=True, slots=True)
class ServiceQuery:
    """A DNS query that reached the DNS service.

    `name` is in lower case without the final dot, `type` is a name such as `AAAA`. The other fields
    are as in `ServiceVisit`.
    """

    at: float
    namespace: str
    transport: Transport
    client: tuple[str, int]
    name: str
    type: str


class _Listener(NamedTuple):
    socket: socket.socket
    namespace: str
    transport: Transport
    service: str
    address: str


class Services:
    """A running services process. Use it as a context manager, or `stop` it."""

    def __init__(self, pid: int, control: Channel) -> None:
        self.pid = pid
        """Pid of the services process in the caller's pid namespace; 0 once it has ended."""
        self._control = control
        self._asks = 0

    @classmethod
    def start(
        cls,
        served: Mapping[str, tuple[NetNS, Sequence[Address]]],
        *,
        topology: Topology | None = None,
    ) -> Self:
        """Start all services on the given addresses of each namespace.

        Packets that arrive before the process runs wait in its sockets. The names that the DNS
        service knows are those of `topology`. Raises `OSError`, which names the socket, if a socket
        cannot be opened.
        """
        parent = os.getpid()
        with contextlib.ExitStack() as stack:
            listeners = []
            for listener in _listeners(served):
                stack.enter_context(listener.socket)
                listeners.append(listener)
            here, there = Channel.pair()
            with there:
                pid = quiet_fork()
                if pid == 0:
                    _be_services(parent, there, listeners, topology or Topology())
            return cls(pid, here)

    def queries(self, since: int = 0) -> list[ServiceQuery]:
        """Return the DNS queries that arrived after a point of the record, in order of arrival.

        `since` is a point that `mark` has returned.
        """
        return [event for event in self._ask(since)[1] if isinstance(event, ServiceQuery)]

    def visits(self, since: int = 0) -> list[ServiceVisit]:
        """Return visits (connections, datagrams) after a point of the record, in order of arrival.

        Visits to the DNS service are included. `since` is a point that `mark` has returned.
        """
        return [event for event in self._ask(since)[1] if isinstance(event, ServiceVisit)]

    def mark(self) -> int:
        """Return the current end of the record, as a point for later calls.

        Everything that has already reached the sockets comes before this point.
        """
        return self._ask(None)[0]

    def _ask(self, since: int | None) -> tuple[int, list[ServiceVisit | ServiceQuery]]:
        if not self.pid:
            raise ServicesDied("the services have ended, so there is no record")
        self._asks += 1
        try:
            answer = self._control.ask(self._asks, pickle.dumps(since), PATIENCE)
        except TimeoutError:
            raise self._end(
                f"did not return its record within {PATIENCE} s, and was killed"
            ) from None
        except FailedError as error:
            raise self._end(f"failed:\n{error}") from None
        except (EOFError, OSError):
            raise self._end("ended before it returned its record") from None
        length: int
        record: list[ServiceVisit | ServiceQuery]
        length, record = pickle.loads(answer)  # noqa: S301 # from our own child
        return length, record

    def stop(self) -> None:
        """End the services process; does nothing if the process has been stopped.

        Raises `ServicesDied` if the process had ended by itself: some requests may then have had no
        reply.
        """
        if not self.pid:
            return
        gone = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        error = self._end("ended before it was stopped")
        if gone:
            raise error

    def _end(self, what: str) -> ServicesDied:
        """End the services process if it still runs; return the error that describes its end."""
        pid, self.pid = self.pid, 0
        os.kill(pid, signal.SIGKILL)  # a process that has already ended keeps its own status
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        words = ""
        with self._control, contextlib.suppress(EOFError, OSError):
            while True:  # read its remaining messages
                number, answer = self._control.receive()
                words = words if number != LAST_WORDS else f"; it failed:\n{answer.decode()}"
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return ServicesDied(f"the services process {pid} ({how}) {what}{words}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _listeners(served: Mapping[str, tuple[NetNS, Sequence[Address]]]) -> Iterator[_Listener]:
    for namespace, (netns, addresses) in served.items():
        for address in addresses:
            for transport, ports in _PORTS.items():
                for service, port in ports.items():
                    opened = _open(netns, namespace, transport, address, port)
                    yield _Listener(opened, namespace, transport, service, str(address))


def _open(
    netns: NetNS, namespace: str, transport: Transport, address: Address, port: int
) -> socket.socket:
    opened = netns.socket(_FAMILIES[address.version], _KINDS[transport] | socket.SOCK_NONBLOCK)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((str(address), port))
        if transport == "tcp":
            opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise OSError(
            error.errno,
            f"cannot serve {transport} port {port} of {address} in {namespace}: {error.strerror}. "
            "The address must be on an interface there and not tentative, and the port free",
        ) from error
    return opened


# --- inside the process --------------------------------------------------------


def _be_services(
    parent: int, control: Channel, listeners: Sequence[_Listener], topology: Topology
) -> NoReturn:
    try:
        detach_from_parent(
            {control.fileno(), *(listener.socket.fileno() for listener in listeners)}
        )
        if os.getppid() != parent:
            os._exit(1)  # the parent died before prctl(2) took effect
        _Server(control, listeners, Zone(topology)).run()
    except BaseException:
        with contextlib.suppress(OSError):
            control.send(LAST_WORDS, traceback.format_exc().encode())
    finally:
        os._exit(1)


class _Server:
    """Server in the services process, with open sockets and a record of visits and queries."""

    def __init__(self, control: Channel, listeners: Sequence[_Listener], zone: Zone) -> None:
        self._streams: dict[str, Callable[[ServiceClient], Dialogue]] = {
            "echo": echo,
            "discard": discard,
            "chargen": chargen,
            "dns": functools.partial(dns_stream, zone),
            "http": http,
        }
        self._datagrams: dict[str, Callable[[ServiceClient, bytes], bytes | None]] = {
            "echo": echo_datagram,
            "dns": functools.partial(dns_datagram, zone),
        }
        self._record: list[ServiceVisit | ServiceQuery] = []
        self._control = control
        self._requests: list[tuple[int, int | None]] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._take_request)
        for listener in listeners:
            act = self._accept if listener.transport == "tcp" else self._receive
            self._selector.register(
                listener.socket, selectors.EVENT_READ, functools.partial(act, listener)
            )

    def run(self) -> None:
        """Serve clients and requests for the record until the control channel closes."""
        while True:
            self._round()
            if self._requests:
                while self._round(0):
                    pass  # handle packets delivered before the request first
                for number, since in self._requests:
                    record = [] if since is None else self._record[since:]
                    self._control.send(number, pickle.dumps((len(self._record), record)))
                self._requests.clear()

    def _round(self, timeout: float | None = None) -> bool:
        """Handle all ready sockets; return whether any of them had input."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            # Readiness is only a hint: see select(2) and accept(2).
            with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
                key.data()
        return any(events & selectors.EVENT_READ for _, events in ready)

    def _take_request(self) -> None:
        try:
            number, since = self._control.receive()
        except (EOFError, OSError):
            os._exit(0)
        self._requests.append((number, pickle.loads(since)))  # noqa: S301 # from our own parent

    def _note_visit(self, listener: _Listener, client: tuple[str, int]) -> ServiceClient:
        """Record a visit; return the client for the service."""
        where = (listener.namespace, listener.transport, client)
        self._record.append(ServiceVisit(time.time(), *where, listener.service, listener.address))

        def note(query: DnsQuery) -> None:
            self._record.append(ServiceQuery(time.time(), *where, query.name, query.type))

        return ServiceClient(client, listener.namespace, note)

    def _accept(self, listener: _Listener) -> None:
        accepted, client = listener.socket.accept()
        visitor = self._note_visit(listener, client[:2])
        _Conversation(self._selector, accepted, self._streams[listener.service](visitor))

    def _receive(self, listener: _Listener) -> None:
        data, client = listener.socket.recvfrom(_LONGEST)
        visitor = self._note_visit(listener, client[:2])
        if client[1] in _OWN:
            return  # two services that reply to each other would never stop
        answer = self._datagrams[listener.service](visitor, data)
        if answer is not None:
            # Without a route back the reply is lost, as in any network.
            with contextlib.suppress(OSError):
                listener.socket.sendto(answer, client)


class _Conversation:
    """One TCP connection and the dialogue that runs on it."""

    def __init__(
        self, selector: selectors.BaseSelector, connected: socket.socket, dialogue: Dialogue
    ) -> None:
        self._selector, self._socket, self._dialogue = selector, connected, dialogue
        self._unsent = LISTEN
        self._over = False
        connected.setblocking(False)
        selector.register(connected, selectors.EVENT_READ, self._go_on)
        self._turn(None)

    def _go_on(self) -> None:
        try:
            if self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
                if not self._unsent:
                    self._turn(b"")
                return
            data = self._socket.recv(_LONGEST)
            if not self._over:
                self._turn(data)
            elif not data:
                self._close()
        except BlockingIOError:
            raise
        except OSError:
            self._close()  # reset, or unreachable

    def _turn(self, data: bytes | None) -> None:
        try:
            self._unsent = next(self._dialogue) if data is None else self._dialogue.send(data)
        except StopIteration:
            # A close with unread bytes sends a reset, which may overtake the reply.
            self._over = True
            self._socket.shutdown(socket.SHUT_WR)
        wanted = selectors.EVENT_WRITE if self._unsent else selectors.EVENT_READ
        self._selector.modify(self._socket, wanted, self._go_on)

    def _close(self) -> None:
        self._selector.unregister(self._socket)
        self._socket.close()
