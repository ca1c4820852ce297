"""The netns probe: every question asked at once, every answer gathered from one epoll.

Sockets are opened inside the namespaces through setns and used from here, so a
matrix costs one process and no command. A positive answer names the witness and
whom it saw; a negative one is final when the world is quiet (`settle`).
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from harness.model import FAMILIES, Cell, Family, Observation, Outcome, Protocol
from harness.probe import icmp, wire
from harness.probe.settle import Quiet, await_ready
from harness.probe.station import (
    Datagram,
    Station,
    open_stations,
    pending_error,
    plain,
    receive,
    reply,
    syn_ttl,
)
from harness.topology import Address
from linux import netstate
from linux.netlink import Netlink
from linux.netns import NetNS

SLICE: Final = 8192
"""Questions that are under way at once. Below the 65,536 that an ICMP sequence can tell apart."""

_PORTS: Final = range(61000, 65536)
"""Where witnesses listen: above the range from which the kernel draws source ports."""
_PUMP_EVERY: Final = 32
_EVENTS: Final = 512

_NO_ROUTE: Final = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.ENETDOWN,
        errno.EINVAL,
    }
)
_FORBIDDEN: Final = frozenset({errno.EPERM, errno.EACCES})


class NeighbourTableFull(Exception):
    """The kernel's neighbour table overflowed: cells may have been lost for that alone."""


@dataclass(frozen=True, slots=True)
class Question:
    """One probe: from where, to which address, and which namespace should answer."""

    cell: Cell
    source: NetNS
    address: Address
    target: NetNS


@dataclass(slots=True)
class _Heard:
    """What a witness told about a question."""

    witness: int
    seen: Address
    ttl: int | None


@dataclass(slots=True)
class _Answer:
    """What came back to the source."""

    at: float
    source: Address
    ttl: int | None = None


def observe(
    questions: Sequence[Question],
    *,
    control: NetNS,
    watched: Sequence[NetNS],
    owners: Mapping[Address, str],
    patience: float = 0.0,
) -> dict[Cell, Observation]:
    """Ask every question and tell what happened, cell by cell.

    `control` and `watched` are what `settle.Quiet` needs; `owners` says who has
    which address, so that `seen_from` is a name. `patience` is a further wait in
    seconds for runtimes whose datapath runs in user space. Raises `PortsTaken`,
    `NeverReady`, `NeverQuiet`, `ControlLost` or `NeighbourTableFull` when the
    harness, not the runtime, is in trouble.
    """
    spaces = list({item.id: item for q in questions for item in (q.source, q.target)}.values())
    await_ready([*watched, *spaces])
    found: dict[Cell, Observation] = {}
    with Netlink(control) as netlink:
        full = netstate.neighbour_overflows(netlink)
    stations = open_stations(spaces, random.sample(_PORTS, 20))
    try:
        by_space = {station.netns.id: station for station in stations}
        for start in range(0, len(questions), SLICE):
            part = questions[start : start + SLICE]
            with _Asking(part, by_space) as asking:
                asking.send()
                asking.gather(control, watched, patience)
                found.update(asking.observations(owners))
    finally:
        for station in stations:
            station.close()
    with Netlink(control) as netlink:
        overflowed = netstate.neighbour_overflows(netlink) != full
    if overflowed:
        raise NeighbourTableFull(
            "the kernel's neighbour table overflowed while probing, so silence proves nothing; "
            "raise net.ipv4.neigh.default.gc_thresh3 or probe fewer containers at a time"
        )
    return found


class _Asking:
    """One slice of questions under way."""

    def __init__(
        self, questions: Sequence[Question], stations: Mapping[tuple[int, int], Station]
    ) -> None:
        self._questions = questions
        self._stations = stations
        self._names = {station.number: station for station in stations.values()}
        self._run = os.urandom(wire.RUN_LENGTH)
        self._identifier = int.from_bytes(os.urandom(2), "big") | 1
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._sent = [0.0] * len(questions)
        self._open = set(range(len(questions)))
        self._failed: dict[int, Observation] = {}
        self._heard: dict[int, _Heard] = {}
        self._answers: dict[int, _Answer] = {}
        self._streams: dict[int, socket.socket] = {}
        self._accepted: list[socket.socket] = []

    def __enter__(self) -> _Asking:
        for station in self._stations.values():
            for family in FAMILIES:
                self._watch(station.raw[family], partial(self._on_icmp, station, family))
                self._watch(station.udp[family], partial(self._on_answer, station, family))
                self._watch(station.ear[family], partial(self._on_question, station, family))
                self._watch(station.listener[family], partial(self._on_connection, station, family))
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (*self._streams.values(), *self._accepted):
            stream.close()
        self._epoll.close()

    def _watch(self, opened: socket.socket, handler: Callable[[int], None]) -> None:
        self._handlers[opened.fileno()] = handler
        self._epoll.register(opened.fileno(), select.EPOLLIN)

    # --- asking

    def send(self) -> None:
        """Send every question, source by source, taking in what arrives meanwhile."""
        order = sorted(range(len(self._questions)), key=lambda i: self._questions[i].source.id)
        by_source = itertools.groupby(order, key=lambda i: self._questions[i].source.id)
        for source, indexes in by_source:
            station = self._stations[source]
            for batch in _batches(indexes, _PUMP_EVERY):
                with station.netns.entered():
                    for index in batch:
                        self._ask(station, index)
                self._pump()

    def _ask(self, station: Station, index: int) -> None:
        asked = self._questions[index]
        family = asked.cell.family
        payload = wire.question(self._run, index)
        self._sent[index] = time.perf_counter()
        try:
            match asked.cell.protocol:
                case Protocol.ICMP:
                    echo = icmp.echo_request(family, self._identifier, index & 0xFFFF, payload)
                    station.raw[family].sendto(echo, (str(asked.address), 0))
                case Protocol.UDP:
                    self._on_answer(station, family, 0)  # take pending errors off the socket
                    station.udp[family].sendto(payload, (str(asked.address), station.port))
                case Protocol.TCP:
                    self._connect(station, index)
        except OSError as error:
            self._refused(index, error.errno or 0, "")

    def _connect(self, station: Station, index: int) -> None:
        asked = self._questions[index]
        stream = self._streams[index] = station.connecting(asked.cell.family)
        code = stream.connect_ex((str(asked.address), station.port))
        if code in (0, errno.EINPROGRESS):
            self._watch(stream, partial(self._on_greeting, index))
        else:
            self._refused(index, code, "")

    def _refused(self, index: int, number: int, code: str) -> None:
        """Note an error. Without an ICMP `code` it is the source's own kernel that speaks."""
        word = errno.errorcode.get(number, str(number))
        if code:
            seen = Observation(Outcome.REJECTED, code=code)
        elif number == errno.ECONNREFUSED:
            seen = Observation(Outcome.REJECTED, code="rst")
        elif number in _FORBIDDEN:
            seen = Observation(Outcome.REJECTED, code="local-policy", detail=word)
        elif number in _NO_ROUTE:
            seen = Observation(Outcome.NO_ROUTE, detail=word)
        else:
            seen = Observation(Outcome.DROPPED, detail=word)
        self._failed[index] = seen
        self._open.discard(index)

    # --- gathering

    def gather(self, control: NetNS, watched: Sequence[NetNS], patience: float) -> None:
        """Take in answers until every question has one or the world is quiet."""
        with Quiet(control, watched) as quiet:
            while self._open:
                if self._pump():
                    continue
                if quiet.reached() and not self._pump():
                    break
        deadline = time.monotonic() + patience
        while self._open and (left := deadline - time.monotonic()) > 0:
            self._pump(left)

    def _pump(self, wait: float = 0.0) -> bool:
        """Handle what has arrived; whether there was anything."""
        any_event = False
        while events := self._epoll.poll(wait, _EVENTS):
            any_event, wait = True, 0.0
            for descriptor, mask in events:
                handler = self._handlers.get(descriptor)
                if handler is not None:
                    handler(mask)
        return any_event

    def _on_icmp(self, station: Station, family: Family, _mask: int) -> None:
        while datagram := receive(station.raw[family]):
            message = icmp.parse(family, datagram.data)
            if message is None:
                continue
            ttl = message.ttl if family == 4 else datagram.ttl
            if message.kind in icmp.ERRORS[family]:
                self._on_icmp_error(family, message)
                continue
            index = wire.read_question(message.payload, self._run)
            if index is None:
                continue
            if message.kind == icmp.ECHO_REQUEST[family]:
                self._heard[index] = _Heard(station.number, datagram.source, ttl)
            elif self._stations[self._questions[index].source.id] is station:
                self._answers[index] = _Answer(time.perf_counter(), datagram.source, ttl)
            if index in self._heard and index in self._answers:
                self._open.discard(index)

    def _on_icmp_error(self, family: Family, message: icmp.Message) -> None:
        quoted = icmp.quoted_echo(family, message.payload)
        if quoted is None or quoted[0] != self._identifier:
            return
        index = quoted[1]
        if index in self._open and self._questions[index].cell.protocol is Protocol.ICMP:
            self._refused(index, 0, icmp.name(family, message.kind, message.code))

    def _on_question(self, station: Station, family: Family, _mask: int) -> None:
        """Witness a datagram: answer who this is and whom it saw."""
        while datagram := receive(station.ear[family]):
            index = wire.read_question(datagram.data, self._run)
            if index is not None:
                self._heard[index] = _Heard(station.number, datagram.source, datagram.ttl)
                words = wire.answer(self._run, index, station.number, datagram.ttl, datagram.source)
                reply(station.ear[family], datagram, words)
        while pending_error(station.ear[family], family):
            pass

    def _on_answer(self, station: Station, family: Family, _mask: int) -> None:
        opened = station.udp[family]
        while datagram := receive(opened):
            said = wire.read_answer(datagram.data, self._run)
            if said is not None and said.number in self._open:
                self._note_answer(said, datagram)
        while error := pending_error(opened, family):
            index = wire.read_question(error.data, self._run)
            if index is not None and index in self._open:
                self._refused(index, error.errno, error.code)

    def _note_answer(self, said: wire.Answer, datagram: Datagram) -> None:
        self._heard[said.number] = _Heard(said.witness, said.seen, said.ttl)
        self._answers[said.number] = _Answer(time.perf_counter(), datagram.source, datagram.ttl)
        self._open.discard(said.number)

    def _on_connection(self, station: Station, family: Family, _mask: int) -> None:
        """Witness a connection: say at once who this is and whom it saw."""
        while True:
            try:
                stream, sender = station.listener[family].accept()
            except OSError:
                return
            words = wire.answer(
                self._run, wire.GREETING, station.number, syn_ttl(stream), plain(sender[0])
            )
            stream.setblocking(False)
            self._accepted.append(stream)
            try:
                stream.send(words)
            except OSError:
                continue  # the asker is gone already; it has noted why

    def _on_greeting(self, index: int, _mask: int) -> None:
        stream = self._streams[index]
        family = self._questions[index].cell.family
        words = b""
        try:
            words = stream.recv(wire.ANSWER_LENGTH)
        except BlockingIOError:
            # An ICMP error that came while connect() held the socket: the kernel would
            # act on it at the first retransmission, a second later.
            told = pending_error(stream, family)
            if told is None or not told.code:
                return
            self._refused(index, told.errno, told.code)
        except OSError as error:
            told = pending_error(stream, family)
            self._refused(index, error.errno or 0, told.code if told else "")
        said = wire.read_answer(words, self._run)
        if said is not None:
            address = self._questions[index].address
            self._heard[index] = _Heard(said.witness, said.seen, said.ttl)
            self._answers[index] = _Answer(time.perf_counter(), address)
        elif index in self._open:
            detail = f"the connection was accepted, then came {words[:40]!r}"
            self._failed[index] = Observation(Outcome.WRONG_PEER, detail=detail)
        self._open.discard(index)
        self._handlers.pop(stream.fileno(), None)
        self._epoll.unregister(stream.fileno())

    # --- telling

    def observations(self, owners: Mapping[Address, str]) -> Iterator[tuple[Cell, Observation]]:
        """What happened in each cell of the slice."""
        for index, asked in enumerate(self._questions):
            yield asked.cell, self._failed.get(index) or self._tell(index, asked, owners)

    def _tell(self, index: int, asked: Question, owners: Mapping[Address, str]) -> Observation:
        heard, answer = self._heard.get(index), self._answers.get(index)
        seen_from = None
        if heard is not None:
            seen_from = owners.get(heard.seen, str(heard.seen))
        if answer is None:
            return self._silence(index, heard, seen_from)
        detail = ""
        if heard is None:
            detail = f"{answer.source} answered, but no witness saw the request"
        elif self._names[heard.witness].netns != asked.target:
            detail = f"net:[{self._names[heard.witness].netns.id[1]}] answered instead"
        elif answer.source != asked.address:
            detail = f"the answer came from {answer.source}, not from {asked.address}"
        return Observation(
            Outcome.WRONG_PEER if detail else Outcome.REPLY,
            ttl=answer.ttl,
            seen_ttl=heard.ttl if heard else None,
            seen_from=seen_from,
            rtt=answer.at - self._sent[index],
            detail=detail,
        )

    def _silence(self, index: int, heard: _Heard | None, seen_from: str | None) -> Observation:
        stream = self._streams.get(index)
        if stream is not None and _connected(stream):
            detail = "something accepted the connection and said nothing"
            return Observation(Outcome.WRONG_PEER, detail=detail)
        if heard is None:
            return Observation(Outcome.DROPPED, detail="the request reached no witness")
        detail = f"the request arrived, seen as {seen_from}; no answer came back"
        return Observation(Outcome.DROPPED, seen_ttl=heard.ttl, seen_from=seen_from, detail=detail)


def _connected(stream: socket.socket) -> bool:
    try:
        stream.getpeername()
    except OSError:
        return False
    return True


def _batches(items: Iterator[int], size: int) -> Iterator[list[int]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
