"""Payloads of the probes: a question with a nonce; an answer with the witness and its peer.

Pure: bytes in, tuples out. The nonce (`run`) is drawn anew for every matrix, so
an answer that belongs to an earlier one, or that something in between made up,
is never taken for a reply.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from harness.model.topology import Address
from harness.probe.sockets import unpacked

MAGIC: Final = b"nmod"
RUN_LENGTH: Final = 8
GREETING: Final = 0xFFFFFFFF
"""Index of the answer that a TCP witness sends before it has received a question."""

_QUESTION: Final = struct.Struct("!4sc8sI")
_ANSWER: Final = struct.Struct("!4sc8sIIBB16s")
ANSWER_LENGTH: Final = _ANSWER.size


class WitnessReply(NamedTuple):
    """The reply of a witness: its number, the TTL and the peer address that it saw."""

    number: int
    witness: int
    ttl: int | None
    seen: Address


def question(run: bytes, index: int) -> bytes:
    """Return the payload of probe number `index`."""
    return _QUESTION.pack(MAGIC, b"Q", run, index)


def read_question(payload: bytes, run: bytes) -> int | None:
    """Return the index in a payload, `None` if the payload is not of this run."""
    if len(payload) < _QUESTION.size:
        return None
    magic, kind, its_run, index = _QUESTION.unpack_from(payload)
    return int(index) if (magic, kind, its_run) == (MAGIC, b"Q", run) else None


def answer(run: bytes, index: int, witness: int, ttl: int | None, seen: Address) -> bytes:
    """Return the answer that a witness sends. An unknown TTL is sent as 0."""
    packed = seen.packed
    return _ANSWER.pack(MAGIC, b"A", run, index, witness, ttl or 0, len(packed), packed)


def read_answer(payload: bytes, run: bytes) -> WitnessReply | None:
    """Parse an answer; return `None` if it is not of this run."""
    if len(payload) != _ANSWER.size:
        return None
    magic, kind, its_run, index, witness, ttl, length, packed = _ANSWER.unpack(payload)
    if (magic, kind, its_run) != (MAGIC, b"A", run) or length not in (4, 16):
        return None
    return WitnessReply(index, witness, ttl or None, unpacked(packed[:length]))
