"""Prober: sends the requests of all cells at once and collects the replies through one epoll.

The prober opens sockets inside the namespaces through setns and uses them from its own process. A
whole matrix therefore needs only one process, and runs no commands. For namespaces that setns
cannot enter, an agent opens the sockets (`remote`).

A positive result needs a witness, a socket of the harness that received the request. The result
names the witness and the sender that the witness saw (`reception` decides). A negative result is
final once no packet is in flight (`quiescence`).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import select
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Self

from harness.model.plan import FAMILIES, Cell, Family, Observation, Protocol
from harness.model.topology import Address
from harness.probe import icmp, quiescence, reception
from harness.probe.quiescence import Quiet
from harness.probe.reception import Namer, ProbeRequest, ProbeResults, ReplySeen, RequestSeen
from harness.probe.remote import AgentNetNS
from harness.probe.sockets import (
    Datagram,
    Make,
    ProbeSockets,
    SocketError,
    SynListener,
    connected,
    open_sockets,
    opener,
    pending_error,
    plain,
    receive,
    received_syns,
    reply,
    seen_from_host,
    sockets_of,
    spelled,
)
from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.readiness import await_ready, forget_unresolved

SLICE: Final = 8192
"""Number of requests in flight at once; an ICMP sequence number has only 65,536 values."""

_PORTS: Final = range(61000, 65536)
"""Ports of the witnesses: above the kernel's range of ephemeral ports."""
_OWN_PORTS: Final = range(24576, 24576 + SLICE)
"""Source ports of agents: below the ephemeral range, so that no other socket has them."""
_PUMP_EVERY: Final = 32
_DELAYED_PAUSE: Final = 0.002
"""Time in seconds to wait for replies while the kernel delays a neighbour reply."""
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""Errors from the limits of this process, not from the network."""
_EVENTS: Final = 512


class NeighbourTableFull(Exception):
    """The kernel's neighbour table overflowed, which alone may explain missing replies."""


class SendQueueFull(Exception):
    """A socket cannot send: packets for neighbours that do not reply fill its send queue."""


def observe(
    requests: Sequence[ProbeRequest],
    *,
    control: NetNS,
    watched: Sequence[NetNS],
    namer: Namer,
    witnesses: Sequence[NetNS] = (),
    patience: float = 0.0,
) -> dict[Cell, Observation]:
    """Send every request and return the observation of each cell.

    `control` and `watched` are as in `quiescence.Quiet`. `namer` returns the name of an address's
    owner, for `seen_from`. `witnesses` are further namespaces that may reply because they share an
    address with a target. `patience` is an additional wait in seconds, for runtimes whose datapath
    runs in user space.

    Raises `PortsTaken`, `NeverReady`, `NeverQuiet`, `ControlLost`, `NeighbourTableFull` or
    `SendQueueFull` if the harness, not the runtime, has failed.
    """
    ends = (item for request in requests for item in (request.source, request.target))
    spaces = list({opener(item): item for item in (*witnesses, *ends)}.values())
    spaces.sort(key=lambda space: isinstance(space, AgentNetNS))
    found: dict[Cell, Observation] = {}
    unanswered: set[NetNS] = set()
    with Netlink(control) as netlink, contextlib.ExitStack() as stack:
        overflows = rtnetlink_dump.neighbour_overflows(netlink)
        each = {space.id: space for space in (*watched, *spaces)}.values()
        everywhere = [seen_from_host(space, stack) for space in each]
        links = await_ready(everywhere, afresh=True)
        opened = open_sockets(spaces, random.sample(_PORTS, 20))
        for sockets in opened:
            stack.callback(sockets.close)
        for start in range(0, len(requests), SLICE):
            with _Exchange(requests[start : start + SLICE], opened) as exchange:
                exchange.send()
                exchange.gather(Quiet(control, everywhere, links=links), patience)
                found.update(exchange.results.observations(namer))
                unanswered |= exchange.results.unanswered_ends()
        for space in unanswered:
            with Netlink(seen_from_host(space, stack)) as inside:
                forget_unresolved(inside)
        if rtnetlink_dump.neighbour_overflows(netlink) != overflows:
            raise NeighbourTableFull(
                "the kernel's neighbour table overflowed, so a missing reply proves nothing; "
                "raise net.ipv4.neigh.default.gc_thresh3 or probe fewer containers at a time"
            )
    return found


class _Exchange:
    """A group of requests that are in flight at the same time."""

    def __init__(self, requests: Sequence[ProbeRequest], opened: Sequence[ProbeSockets]) -> None:
        self.results = ProbeResults(requests)
        self._requests = requests
        self._opened = opened
        self._number_of = {opener(sockets.netns): sockets.number for sockets in opened}
        self._spaces = [sockets.netns for sockets in opened]
        self._agents = [space.agent for space in self._spaces if isinstance(space, AgentNetNS)]
        for agent in self._agents:
            agent.slowest = 0.0
        self._run = os.urandom(reception.RUN_LENGTH)
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._first_port = int.from_bytes(os.urandom(2), "big") % SLICE
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._sent = [0.0] * len(requests)
        self._streams: dict[int, socket.socket] = {}
        self._accepted: list[socket.socket] = []
        self._syns: dict[tuple[int, Family], SynListener] = {}

    def __enter__(self) -> Self:
        by_tcp = {
            request.cell.family
            for request in self._requests
            if request.cell.protocol is Protocol.TCP
        }
        for own in self._opened:
            if own.witness:
                with sockets_of(own.netns) as make:
                    for family in by_tcp:
                        self._syns[own.number, family] = SynListener(own.netns, family, make)
            for family in FAMILIES:
                self._watch(own.raw[family], partial(self._on_icmp, own, family))
                self._watch(own.udp[family], partial(self._on_datagram_reply, own, family))
                if own.witness:
                    self._watch(own.udp_witness[family], partial(self._on_datagram, own, family))
                    self._watch(own.listener[family], partial(self._on_connection, own, family))
        return self

    def __exit__(self, *_: object) -> None:
        for opened in (*self._streams.values(), *self._accepted):
            opened.close()
        for listener in self._syns.values():
            listener.close()
        self._epoll.close()

    def _watch(self, opened: socket.socket, handler: Callable[[], None]) -> None:
        self._handlers[opened.fileno()] = handler
        self._epoll.register(opened.fileno(), select.EPOLLIN)

    # --- sending

    def send(self) -> None:
        """Send every request, source by source; receive replies in between."""
        numbers = [self._number_of[opener(request.source)] for request in self._requests]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        for number, indexes in itertools.groupby(order, key=numbers.__getitem__):
            own = self._opened[number]
            while batch := list(itertools.islice(indexes, _PUMP_EVERY)):
                with sockets_of(own.netns) as make:
                    for index in batch:
                        self._send_one(own, index, make)
                self._pump()

    def _send_one(self, own: ProbeSockets, index: int, make: Make) -> None:
        request = self._requests[index]
        family, address = request.cell.family, spelled(request.address)
        payload = reception.pack_request(self._run, index)
        self._sent[index] = time.perf_counter()
        try:
            match request.cell.protocol:
                case Protocol.ICMP:
                    echo = icmp.echo_request(family, self._identifier, index, payload)
                    own.raw[family].sendto(echo, (address, 0))
                case Protocol.UDP:
                    self._send_datagram(own, family, payload, (address, own.port))
                case Protocol.TCP:
                    port = _OWN_PORTS[(self._first_port + index) % SLICE]
                    stream = self._streams[index] = own.connecting(family, make, port)
                    code = stream.connect_ex((address, own.port))
                    if code not in (0, errno.EINPROGRESS):
                        raise OSError(code, os.strerror(code))
                    self._watch(stream, partial(self._on_greeting, index))
        except BlockingIOError as error:
            raise SendQueueFull(
                f"cannot probe {request.cell}: too many packets of its source wait for "
                "neighbours that do not answer; probe fewer containers at a time"
            ) from error
        except OSError as error:
            if error.errno in _OURS:
                raise  # a harness error, not a verdict
            self.results.failed(index, error.errno or 0)

    def _send_datagram(
        self, own: ProbeSockets, family: Family, payload: bytes, to: tuple[str, int]
    ) -> None:
        try:
            own.udp[family].sendto(payload, to)
        except OSError:
            # send() reports the error of an earlier packet instead of sending this one (ip(7)).
            self._on_datagram_reply(own, family)
            own.udp[family].sendto(payload, to)

    # --- gathering

    def gather(self, silence: Quiet, patience: float) -> None:
        """Receive replies until every request has one or no packet is in flight any more."""
        with silence as quiet:
            self._pump()
            while self.results.open:
                if quiet.reached() and not self._pump() and not self._pump_agents():
                    break
                self._pump(_DELAYED_PAUSE if quiet.delayed else 0.0)
        patience = max(patience, quiescence.agent_patience(self._spaces))
        quiescence.await_silence(patience, lambda: bool(self.results.open), self._pump)
        self._pump_agents()
        for index in self.results.open & self._streams.keys():
            if connected(self._streams[index]):
                self.results.impostor(index, "a process accepted the connection and sent nothing")
        lost = {index: self._streams[index] for index in self.results.open & self._streams.keys()}
        for index, space, syn in received_syns(self._syns.values(), lost):
            self.results.received(index, RequestSeen(space, syn.source, syn.ttl))

    def _pump_agents(self) -> bool:
        """Wait until the agents have reported all events; return whether there were any."""
        for agent in self._agents:
            agent.sync()
        return bool(self._agents) and self._pump()

    def _pump(self, wait: float = 0.0) -> bool:
        """Handle the events of all sockets; return whether there were any."""
        any_event = False
        while events := self._epoll.poll(wait, _EVENTS):
            any_event, wait = True, 0.0
            for descriptor, _ in events:
                if handler := self._handlers.get(descriptor):
                    handler()
        return any_event

    def _on_icmp(self, own: ProbeSockets, family: Family) -> None:
        while datagram := receive(own.raw[family]):
            message = icmp.parse(family, datagram.data)
            if message is None:
                continue
            if message.kind in icmp.ERRORS[family]:
                self._on_icmp_error(own, family, message, datagram.source)
                continue
            index = reception.read_request(message.payload, self._run)
            if index is None:
                continue
            ttl = message.ttl if family == 4 else datagram.ttl
            if message.kind == icmp.ECHO_REQUEST[family]:
                self.results.received(index, RequestSeen(own.netns, datagram.source, ttl))
            elif self._sent_from(own, index):
                self._replied(index, datagram.source, ttl)

    def _on_icmp_error(
        self, own: ProbeSockets, family: Family, message: icmp.Message, offender: Address
    ) -> None:
        quoted = icmp.quoted_echo(family, message.payload)
        if quoted and quoted[0] == self._identifier and self._sent_from(own, quoted[1]):
            code = icmp.name(family, message.kind, message.code)
            self._on_error(quoted[1], SocketError(0, b"", code, offender))

    def _on_error(self, index: int, error: SocketError) -> None:
        """Record an error that arrived after the kernel had accepted the packet for sending."""
        if error.code == icmp.HOST_UNREACHABLE:
            with Netlink(self._requests[index].source) as netlink:
                own = {item.address.ip for item in rtnetlink_dump.addresses(netlink)}
            if error.offender in own:
                # The source's kernel reports an unresolved neighbour only after seconds. A faster
                # matrix would not have seen the error, so the outcome is the same as silence.
                error = SocketError(errno.EHOSTUNREACH)
        self.results.failed(index, error.errno, error.code, late=True)

    def _on_datagram(self, own: ProbeSockets, family: Family) -> None:
        """Reply to a request with the number of this witness and the sender that it saw."""
        witness = own.udp_witness[family]
        while datagram := receive(witness):
            index = reception.read_request(datagram.data, self._run)
            if index is None:
                continue
            ttl, source = datagram.ttl, datagram.source
            self.results.received(index, RequestSeen(own.netns, source, ttl))
            reply(
                witness, datagram, reception.pack_reply(self._run, index, own.number, ttl, source)
            )
        while pending_error(witness, family):
            pass  # the source has closed; its own end reports the reason

    def _on_datagram_reply(self, own: ProbeSockets, family: Family) -> None:
        opened = own.udp[family]
        while datagram := receive(opened):
            answer = reception.read_reply(datagram.data, self._run)
            if answer is None:
                self._on_stray(own, datagram)
            elif self._sent_from(own, answer.number):
                self._witnessed(answer.number, answer)
                self._replied(answer.number, datagram.source, datagram.ttl)
        while error := pending_error(opened, family):
            index = reception.read_request(error.data, self._run)
            if index is not None:
                self._on_error(index, error)

    def _on_stray(self, own: ProbeSockets, datagram: Datagram) -> None:
        """Record an impostor: a reply that is not from a witness.

        It comes from the address to which a request was sent.
        """
        for index in tuple(self.results.open):
            request = self._requests[index]
            by_udp = request.cell.protocol is Protocol.UDP and request.source == own.netns
            if by_udp and request.address == datagram.source:
                self.results.impostor(index, f"the reply was {datagram.data[:40]!r}")

    def _on_connection(self, own: ProbeSockets, family: Family) -> None:
        """Accept a connection; send at once the number of this witness and the peer that it saw."""
        while True:
            try:
                stream, sender = own.listener[family].accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue  # the source has closed; its own end reports the reason
            self._accepted.append(stream)
            source = plain(sender[0])
            # A client outside the matrix may connect in a family without TCP requests.
            syns = self._syns.get((own.number, family))
            ttl = syns.ttl(source, sender[1]) if syns else None
            greeting = reception.pack_reply(self._run, reception.GREETING, own.number, ttl, source)
            with contextlib.suppress(OSError):  # likewise
                stream.send(greeting)

    def _on_greeting(self, index: int) -> None:
        stream, request = self._streams[index], self._requests[index]
        greeting = b""
        try:
            greeting = stream.recv(reception.REPLY_LENGTH)
        except BlockingIOError:
            # An ICMP error arrived while connect() held the socket. The kernel would handle it
            # only at the first retransmission, a second later.
            pending = pending_error(stream, request.cell.family)
            if pending is None or not pending.code:
                return
            self._on_error(index, pending)
        except OSError as error:
            pending = pending_error(stream, request.cell.family) or SocketError(0)
            self._on_error(index, pending._replace(errno=error.errno or 0))
        if answer := reception.read_reply(greeting, self._run):
            self._witnessed(index, answer)
            self._replied(index, request.address, None)
        else:
            self.results.impostor(
                index, f"the connection was accepted, and its greeting was {greeting[:40]!r}"
            )
        self._handlers.pop(stream.fileno(), None)
        self._epoll.unregister(stream.fileno())

    def _witnessed(self, index: int, answer: reception.WitnessReply) -> None:
        witness = self._opened[answer.witness].netns
        self.results.received(index, RequestSeen(witness, answer.seen, answer.ttl))

    def _replied(self, index: int, source: Address, ttl: int | None) -> None:
        rtt = time.perf_counter() - self._sent[index]
        self.results.replied(index, ReplySeen(rtt, source, ttl))

    def _sent_from(self, own: ProbeSockets, index: int) -> bool:
        """Return whether `own` sent the request; a stray reply to another netns does not count."""
        return index < len(self._requests) and self._requests[index].source == own.netns
