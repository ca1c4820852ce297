"""Prober: sends all questions at once and gathers all answers from one epoll.

It opens sockets inside the namespaces through setns and uses them from here, so a matrix
needs one process and no command; or an agent opens them (`remote`). A positive answer names
the witness and the sender that it saw. A negative one is final when the world is quiet
(`quiescence`).
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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Self

from harness.model.plan import FAMILIES, Cell, Family, Observation, Protocol
from harness.model.topology import Address
from harness.probe import icmp, quiescence
from harness.probe import results as wire
from harness.probe.quiescence import Quiet
from harness.probe.remote import AgentNetNS
from harness.probe.results import Namer, ProbeRequest, ProbeResults, ReplySeen, RequestSeen
from harness.probe.sockets import (
    Datagram,
    Make,
    ProbeSockets,
    SocketError,
    SynListener,
    SynListeners,
    asker,
    connected,
    open_stations,
    pending_error,
    plain,
    receive,
    reply,
    seen_from_host,
    sockets_of,
    spelled,
    syn_ttl,
)
from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.readiness import await_ready, forget_unresolved

SLICE: Final = 8192
"""Questions in flight at once. Fewer than the 65,536 values of an ICMP sequence number."""

_PORTS: Final = range(61000, 65536)
"""Ports of the witnesses: above the kernel's range of ephemeral ports."""
_OWN_PORTS: Final = range(24576, 24576 + SLICE)
"""Source ports of agents: below the ephemeral range, so that no other socket has them."""
_PUMP_EVERY: Final = 32
_HELD_PAUSE: Final = 0.002
"""Seconds to receive answers while a kernel timer delays one."""
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""Errors from the limits of this process, not from the network."""
_EVENTS: Final = 512


class NeighbourTableFull(Exception):
    """The kernel's neighbour table overflowed; packets may have been lost only because of that."""


def observe(
    questions: Sequence[ProbeRequest],
    *,
    control: NetNS,
    watched: Sequence[NetNS],
    namer: Namer,
    witnesses: Sequence[NetNS] = (),
    patience: float = 0.0,
) -> dict[Cell, Observation]:
    """Send every question and return the observation of each cell.

    `control` and `watched` are as in `quiescence.Quiet`; `namer` names the owner of
    an address, so that `seen_from` is a name. `witnesses` are further namespaces that may
    reply because they have an address of a target too. `patience` is a further
    wait in seconds for runtimes whose datapath runs in user space. Raises `PortsTaken`,
    `NeverReady`, `NeverQuiet`, `ControlLost`, `NeighbourTableFull` or `SendQueueFull`
    when the harness, not the runtime, is in trouble.
    """
    ends = (item for q in questions for item in (q.source, q.target))
    asked = {asker(item): item for item in (*witnesses, *ends)}
    spaces = sorted(asked.values(), key=lambda space: isinstance(space, AgentNetNS))
    found: dict[Cell, Observation] = {}
    in_vain: set[NetNS] = set()
    with Netlink(control) as netlink:
        full = rtnetlink_dump.neighbour_overflows(netlink)
    with contextlib.ExitStack() as stack:
        each = {space.id: space for space in (*watched, *spaces)}.values()
        everywhere = [seen_from_host(space, stack) for space in each]
        links = await_ready(everywhere, afresh=True)
        stations = open_stations(spaces, random.sample(_PORTS, 20))
        for station in stations:
            stack.callback(station.close)
        for start in range(0, len(questions), SLICE):
            part = questions[start : start + SLICE]
            with _Asking(part, stations) as asking:
                asking.send()
                asking.gather(Quiet(control, everywhere, links=links), patience)
                found.update(asking.ledger.observations(namer))
                in_vain |= asking.ledger.in_vain()
        for space in in_vain:
            with Netlink(seen_from_host(space, stack)) as netlink:
                forget_unresolved(netlink)
    with Netlink(control) as netlink:
        overflowed = rtnetlink_dump.neighbour_overflows(netlink) != full
    if overflowed:
        raise NeighbourTableFull(
            "the kernel's neighbour table overflowed while probing, so silence proves nothing; "
            "raise net.ipv4.neigh.default.gc_thresh3 or probe fewer containers at a time"
        )
    return found


class SendQueueFull(Exception):
    """The send queue of a socket is full with packets for neighbours that do not reply."""


class _Asking:
    """A slice of questions in flight."""

    def __init__(self, questions: Sequence[ProbeRequest], stations: Sequence[ProbeSockets]) -> None:
        self.ledger = ProbeResults(questions)
        self._stations = stations
        self._asking = {asker(station.netns): station for station in stations}
        self._spaces = [station.netns for station in stations]
        self._agents = [space.agent for space in self._spaces if isinstance(space, AgentNetNS)]
        for agent in self._agents:
            agent.slowest = 0.0
        self._run = os.urandom(wire.RUN_LENGTH)
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._first_port = int.from_bytes(os.urandom(2), "big") % SLICE
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._sent = [0.0] * len(questions)
        self._streams: dict[int, socket.socket] = {}
        self._accepted: list[socket.socket] = []
        self._syns = SynListeners()

    def __enter__(self) -> Self:
        by_tcp = {
            question.cell.family
            for question in self.ledger.questions
            if question.cell.protocol is Protocol.TCP
        }
        for station in self._stations:
            space = station.netns
            with sockets_of(space) as make:
                for family in by_tcp if station.witness else ():
                    self._syns.add(station.number, SynListener(space, family, make))
            for family in FAMILIES:
                self._watch(station.raw[family], partial(self._on_icmp, station, family))
                self._watch(station.udp[family], partial(self._on_answer, station, family))
                if not station.witness:
                    continue
                self._watch(station.ear[family], partial(self._on_question, station, family))
                self._watch(station.listener[family], partial(self._on_connection, station, family))
        return self

    def __exit__(self, *_: object) -> None:
        for opened in (*self._streams.values(), *self._accepted):
            opened.close()
        self._syns.close()
        self._epoll.close()

    def _watch(self, opened: socket.socket, handler: Callable[[], None]) -> None:
        self._handlers[opened.fileno()] = handler
        self._epoll.register(opened.fileno(), select.EPOLLIN)

    # --- asking

    def send(self) -> None:
        """Send every question, source by source, and receive answers meanwhile."""
        questions = self.ledger.questions
        whose = [self._asking[asker(question.source)].number for question in questions]
        order = sorted(range(len(questions)), key=whose.__getitem__)
        for number, indexes in itertools.groupby(order, key=whose.__getitem__):
            station = self._stations[number]
            for batch in _batches(indexes, _PUMP_EVERY):
                with sockets_of(station.netns) as make:
                    for index in batch:
                        self._ask(station, index, make)
                self._pump()

    def _ask(self, station: ProbeSockets, index: int, make: Make) -> None:
        question = self.ledger.questions[index]
        family, address = question.cell.family, spelled(question.address)
        payload = wire.question(self._run, index)
        self._sent[index] = time.perf_counter()
        try:
            match question.cell.protocol:
                case Protocol.ICMP:
                    echo = icmp.echo_request(family, self._identifier, index, payload)
                    station.raw[family].sendto(echo, (address, 0))
                case Protocol.UDP:
                    self._send_datagram(station, family, payload, (address, station.port))
                case Protocol.TCP:
                    port = _OWN_PORTS[(self._first_port + index) % SLICE]
                    stream = self._streams[index] = station.connecting(family, make, port)
                    code = stream.connect_ex((address, station.port))
                    if code not in (0, errno.EINPROGRESS):
                        raise OSError(code, os.strerror(code))
                    self._watch(stream, partial(self._on_greeting, index))
        except BlockingIOError as error:
            raise SendQueueFull(
                f"{question.cell} cannot be asked: too many packets from there wait for neighbours "
                "that do not answer; probe fewer containers at a time"
            ) from error
        except OSError as error:
            if error.errno in _OURS:
                raise  # a harness error, not a verdict
            self.ledger.refused(index, error.errno or 0)

    def _send_datagram(
        self, station: ProbeSockets, family: Family, payload: bytes, to: tuple[str, int]
    ) -> None:
        try:
            station.udp[family].sendto(payload, to)
        except OSError:
            # send() reports the error of an earlier packet instead of sending this one (ip(7)).
            self._on_answer(station, family)
            station.udp[family].sendto(payload, to)

    # --- gathering

    def gather(self, silence: Quiet, patience: float) -> None:
        """Receive answers until every question has one or the world is quiet."""
        with silence as quiet:
            self._pump()
            while self.ledger.open:
                if quiet.reached() and not self._pump() and not self._told_more():
                    break
                self._pump(_HELD_PAUSE if quiet.held else 0.0)
        patience = max(patience, quiescence.agent_patience(self._spaces))
        quiescence.await_silence(patience, lambda: bool(self.ledger.open), self._pump)
        self._told_more()
        for index in self.ledger.open & self._streams.keys():
            if connected(self._streams[index]):
                self.ledger.impostor(index, "something accepted the connection and said nothing")
        lost = [(index, self._streams[index]) for index in self.ledger.open & self._streams.keys()]
        for index, space, syn in self._syns.lost(lost):  # SYN arrived, no connection
            self.ledger.heard(index, RequestSeen(space, syn.source, syn.ttl))

    def _told_more(self) -> bool:
        """Synchronise with the agents; return whether events have arrived."""
        for agent in self._agents:
            agent.sync()
        return bool(self._agents) and self._pump()

    def _pump(self, wait: float = 0.0) -> bool:
        """Handle all events; return whether there were any."""
        any_event = False
        while events := self._epoll.poll(wait, _EVENTS):
            any_event, wait = True, 0.0
            for descriptor, _ in events:
                if handler := self._handlers.get(descriptor):
                    handler()
        return any_event

    def _on_icmp(self, station: ProbeSockets, family: Family) -> None:
        while datagram := receive(station.raw[family]):
            message = icmp.parse(family, datagram.data)
            if message is None:
                continue
            if message.kind in icmp.ERRORS[family]:
                self._on_icmp_error(station, family, message, datagram.source)
                continue
            index = wire.read_question(message.payload, self._run)
            if index is None:
                continue
            ttl = message.ttl if family == 4 else datagram.ttl
            if message.kind == icmp.ECHO_REQUEST[family]:
                self.ledger.heard(index, RequestSeen(station.netns, datagram.source, ttl))
            elif self._asked_from(station, index):
                self.ledger.answered(index, ReplySeen(self._since(index), datagram.source, ttl))

    def _on_icmp_error(
        self, station: ProbeSockets, family: Family, message: icmp.Message, offender: Address
    ) -> None:
        quoted = icmp.quoted_echo(family, message.payload)
        if quoted is None or quoted[0] != self._identifier:
            return
        if self._asked_from(station, quoted[1]):
            code = icmp.name(family, message.kind, message.code)
            self._on_error(quoted[1], SocketError(0, b"", code, offender))

    def _on_error(self, index: int, error: SocketError) -> None:
        """Note an error that came after the packet was sent."""
        if error.code == icmp.HOST_UNREACHABLE:
            source = self.ledger.questions[index].source
            if error.offender in self._own_addresses(source):
                # Seconds later the source's own kernel gives up on a silent neighbour. Had the
                # matrix been faster it would not have been seen: it is silence all the same.
                error = SocketError(errno.EHOSTUNREACH)
        self.ledger.refused(index, error.errno, error.code, late=True)

    def _own_addresses(self, space: NetNS) -> set[Address]:
        with Netlink(space) as netlink:
            return {item.address.ip for item in rtnetlink_dump.addresses(netlink)}

    def _on_question(self, station: ProbeSockets, family: Family) -> None:
        """Witness a datagram: reply with the number of this witness and the sender it saw."""
        ear = station.ear[family]
        while datagram := receive(ear):
            index = wire.read_question(datagram.data, self._run)
            if index is None:
                continue
            self.ledger.heard(index, RequestSeen(station.netns, datagram.source, datagram.ttl))
            seen = (datagram.ttl, datagram.source)
            reply(ear, datagram, wire.answer(self._run, index, station.number, *seen))
        while pending_error(ear, family):
            pass  # the source has closed: its own end reports why

    def _on_answer(self, station: ProbeSockets, family: Family) -> None:
        opened = station.udp[family]
        while datagram := receive(opened):
            said = wire.read_answer(datagram.data, self._run)
            if said is None:
                self._on_stray(station, datagram)
            elif self._asked_from(station, said.number):
                self._believe(said.number, said)
                answer = ReplySeen(self._since(said.number), datagram.source, datagram.ttl)
                self.ledger.answered(said.number, answer)
        while error := pending_error(opened, family):
            index = wire.read_question(error.data, self._run)
            if index is not None:
                self._on_error(index, error)

    def _on_stray(self, station: ProbeSockets, datagram: Datagram) -> None:
        """Note an impostor: a reply for the address of a question that is not from a witness."""
        for index in tuple(self.ledger.open):
            question = self.ledger.questions[index]
            by_udp = question.cell.protocol is Protocol.UDP and question.source == station.netns
            if by_udp and question.address == datagram.source:
                self.ledger.impostor(index, f"what came back is {datagram.data[:40]!r}")

    def _on_connection(self, station: ProbeSockets, family: Family) -> None:
        """Witness a connection: send at once the number of this witness and the peer it saw."""
        while True:
            try:
                stream, sender = station.listener[family].accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue  # an asker that is gone has noted why
            source = plain(sender[0])
            ttl = syn_ttl(stream) or self._syns.ttl(station.number, family, source, sender[1])
            seen = (ttl, source)
            self._accepted.append(stream)
            with contextlib.suppress(OSError):  # an asker that is gone has noted why
                stream.send(wire.answer(self._run, wire.GREETING, station.number, *seen))

    def _on_greeting(self, index: int) -> None:
        stream, question = self._streams[index], self.ledger.questions[index]
        words = b""
        try:
            words = stream.recv(wire.ANSWER_LENGTH)
        except BlockingIOError:
            # An ICMP error that came while connect() held the socket: the kernel would
            # act on it at the first retransmission, a second later.
            told = pending_error(stream, question.cell.family)
            if told is None or not told.code:
                return
            self._on_error(index, told)
        except OSError as error:
            told = pending_error(stream, question.cell.family) or SocketError(0)
            self._on_error(index, told._replace(errno=error.errno or 0))
        if said := wire.read_answer(words, self._run):
            self._believe(index, said)
            self.ledger.answered(index, ReplySeen(self._since(index), question.address, None))
        else:
            self.ledger.impostor(index, f"the connection was accepted, then came {words[:40]!r}")
        self._handlers.pop(stream.fileno(), None)
        self._epoll.unregister(stream.fileno())

    def _believe(self, index: int, said: wire.WitnessReply) -> None:
        witness = self._stations[said.witness].netns
        self.ledger.heard(index, RequestSeen(witness, said.seen, said.ttl))

    def _asked_from(self, station: ProbeSockets, index: int) -> bool:
        """Return whether this station sent the question. A stray reply elsewhere does not count."""
        questions = self.ledger.questions
        return index < len(questions) and questions[index].source == station.netns

    def _since(self, index: int) -> float:
        return time.perf_counter() - self._sent[index]


def _batches(items: Iterator[int], size: int) -> Iterator[list[int]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
