"""Tests of messages between two processes, which stay whole if one end is interrupted."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from harness.world.rpc import LARGEST, LAST_WORDS, Channel, FailedError
from tests.support.processes import nothing_stays_open


class Cut(Exception):
    """Exception that a signal handler raises in these tests."""


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Make both ends of a channel."""
    here, there = Channel.pair()
    with here, there:
        yield here, there


@pytest.mark.parametrize("size", [0, 1, LARGEST, LARGEST + 1, 30 << 20])
def test_rpc_messages_keep_content_and_order(ends: tuple[Channel, Channel], size: int) -> None:
    """Messages of any size arrive whole and in order.

    The sender does not wait for a reader.
    """
    here, there = ends
    messages = [(7, os.urandom(size)), (1 << 63, b"next")]
    for number, message in messages:
        there.send(number, message)
    assert [here.receive(), here.receive()] == messages


def test_long_rpc_message_leaves_no_descriptor_open(ends: tuple[Channel, Channel]) -> None:
    """After a long message both ends have closed its file."""
    here, there = ends
    with nothing_stays_open():
        there.send(1, bytes(LARGEST + 1))
        here.receive()


def test_rpc_skips_reply_to_an_interrupted_request(ends: tuple[Channel, Channel]) -> None:
    """After an interrupted request, the next request gets its own reply."""
    here, there = ends
    there.send(1, b"late")
    there.send(2, b"mine")
    assert here.ask(2, b"?") == b"mine"


def test_rpc_distinguishes_timeout_failure_and_end(ends: tuple[Channel, Channel]) -> None:
    """A timeout, a failed function and a closed channel raise different errors."""
    here, there = ends
    with pytest.raises(TimeoutError, match="no message"):
        here.ask(1, b"?", patience=0.01)
    there.send(LAST_WORDS, b"out of memory")
    with pytest.raises(FailedError, match="out of memory"):
        here.ask(2, b"?")
    there.send(LAST_WORDS, b"and unread questions")
    there.close()
    assert here.receive() == (LAST_WORDS, b"and unread questions")
    with pytest.raises(EOFError):
        here.receive()
    with pytest.raises(BrokenPipeError):
        here.send(3, b"?")


def test_rpc_survives_interruption_at_any_instruction() -> None:
    """Each request gets its own reply, although a signal handler raises at random points."""

    def cut(_: int, frame: FrameType | None) -> None:
        while frame:
            if frame.f_code is Channel.ask.__code__:
                raise Cut
            frame = frame.f_back

    def answer() -> None:
        with contextlib.suppress(EOFError, BrokenPipeError):
            while True:
                number, message = there.receive()
                there.send(number, message * LARGEST)  # through the socket, or by a file

    def disturb() -> None:
        while not done.wait(0.0003):
            signal.pthread_kill(main, signal.SIGUSR1)

    here, there = Channel.pair()
    main = threading.main_thread().ident or 0
    done = threading.Event()
    before = signal.signal(signal.SIGUSR1, cut)
    threads = [threading.Thread(target=answer), threading.Thread(target=disturb)]
    cuts = answers = 0
    with here, there:
        for thread in threads:
            thread.start()
        for number in itertools.count(1):
            if min(cuts, answers) >= 50:
                break
            question = bytes([number % 251]) * (1 + number % 2)
            try:
                answered = here.ask(number, question)
            except Cut:
                cuts += 1
            else:
                answers += 1
                assert answered == question * LARGEST
        done.set()
        threads[1].join()
        signal.signal(signal.SIGUSR1, before)
        os.close(here.detach())
        threads[0].join()
