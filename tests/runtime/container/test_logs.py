"""Tests of the log, which keeps a container's output to the last byte."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import NotFoundError
from runtime.init.process import Stdio
from tests.runtime.conftest import FOR_EVER
from tests.runtime.container.container_files import run_attached
from tests.runtime.support.inspection import until

_FD_SETSIZE = 1024
"""Descriptors that select(2) supports."""
_PAGE = os.sysconf("SC_PAGESIZE")
_PRINTS = "trap 'echo >> /signals' USR1; yes & yes >&2 & while :; do wait; done"


def _run_to_end(engine: Engine, script: str) -> str:
    found = engine.run("base", ["sh", "-c", script], network="none")
    engine.wait(found.id)
    return found.id


def test_log_lines_have_stream_and_time(engine: Engine) -> None:
    """The log has each line once, in order, with its stream and an RFC 3339 time."""
    identity = _run_to_end(engine, "echo one; echo two; echo three >&2")
    entries = list(engine.logs(identity))
    assert [item.data for item in entries if item.stream == "stdout"] == [b"one\n", b"two\n"]
    assert [item.data for item in entries if item.stream == "stderr"] == [b"three\n"]
    times = [item.time for item in entries]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", item) for item in times)
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("script", "written"),
    [
        ("printf 'no newline'", b"no newline"),
        ("printf '\\377\\000\\n'", b"\xff\x00\n"),
        ("head -c 100000 /dev/zero", bytes(100000)),
        ("true", b""),
        ("seq 20000", b"".join(b"%d\n" % number for number in range(1, 20001))),
    ],
    ids=["unfinished line", "no text", "one long line", "nothing", "many lines"],
)
def test_log_keeps_every_byte(engine: Engine, script: str, written: bytes) -> None:
    """The log keeps bytes of any value, also the last ones before the container's end."""
    entries = list(engine.logs(_run_to_end(engine, script)))
    assert b"".join(item.data for item in entries) == written
    assert all(len(item.data) <= 16384 for item in entries)


def test_followed_log_ends_with_the_container(engine: Engine) -> None:
    """A followed log yields lines as they are written, and ends with the container."""
    script = "echo first; while ! test -e /go; do sleep 0.01; done; echo last"
    found = engine.run("base", ["sh", "-c", script], network="none")
    seen: list[bytes] = []

    def follow() -> None:
        seen.extend(item.data for item in engine.logs(found.id, follow=True))

    follower = threading.Thread(target=follow)
    follower.start()
    until(lambda: any(engine.logs(found.id)), "the first line is logged")
    engine.exec(found.id, ["touch", "/go"])
    follower.join(10)
    assert not follower.is_alive()
    assert seen == [b"first\n", b"last\n"]


def test_followed_log_of_a_stopped_container_returns(engine: Engine) -> None:
    """A followed log of a stopped container yields the existing lines and ends."""
    identity = _run_to_end(engine, "echo done")
    assert [item.data for item in engine.logs(identity, follow=True)] == [b"done\n"]


def test_log_continues_across_a_restart(engine: Engine) -> None:
    """The log continues across restarts, like Docker's."""
    identity = _run_to_end(engine, "echo again")
    engine.start(identity)
    engine.wait(identity)
    assert [item.data for item in engine.logs(identity)] == [b"again\n"] * 2


def test_output_of_an_attached_container_is_logged(engine: Engine) -> None:
    """The output of an attached container goes to the log and to the caller's descriptors."""
    out, err = os.pipe(), os.pipe()
    stdin = os.open("/dev/null", os.O_RDONLY)
    script = "echo out; echo err >&2"
    found = engine.run(
        "base", ["sh", "-c", script], network="none", stdio=Stdio(stdin, out[1], err[1])
    )
    for fd in (stdin, out[1], err[1]):
        os.close(fd)
    assert engine.wait(found.id) == 0
    for (reader, _), text in ((out, b"out\n"), (err, b"err\n")):
        with open(reader, "rb") as file:
            assert file.read() == text
    assert sorted(item.data for item in engine.logs(found.id)) == [b"err\n", b"out\n"]


def test_container_and_log_continue_after_the_reader_exits(engine: Engine) -> None:
    """The container and its log continue after the reader of the copy has exited."""
    out, writer = os.pipe()
    script = "echo one; while ! test -e /go; do sleep 0.01; done; echo two; exit 3"
    found = run_attached(engine, ["sh", "-c", script], writer)
    os.close(writer)
    assert os.read(out, 16) == b"one\n"
    os.close(out)
    engine.exec(found.id, ["touch", "/go"])
    assert engine.wait(found.id) == 3
    assert [item.data for item in engine.logs(found.id)] == [b"one\n", b"two\n"]


@pytest.fixture
def used_descriptors(root: Path) -> Iterator[None]:
    """Use up all descriptor numbers below 1024."""
    with ExitStack() as stack:
        while (opened := os.open(os.devnull, os.O_RDONLY)) < _FD_SETSIZE:
            stack.callback(os.close, opened)
        os.close(opened)
        yield


def test_followed_log_ends_despite_many_open_descriptors(
    engine: Engine, used_descriptors: None
) -> None:
    """A log is followed to the container's end although 1024 descriptors are in use.

    The container ends when its stdin ends.
    """
    out, into = os.pipe()
    nothing = os.open(os.devnull, os.O_WRONLY)
    stdio = Stdio(out, nothing, nothing)
    engine.run("base", ["sh", "-c", "echo hi; read"], name="web", network="none", stdio=stdio)
    entries = engine.logs("web", follow=True)
    assert next(entries).data == b"hi\n"
    for fd in (out, into, nothing):
        os.close(fd)
    assert list(entries) == []


@pytest.fixture
def small_pipe() -> Iterator[tuple[int, int]]:
    """Return the read end and the write end of a pipe with room for one page."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PAGE)
    yield out, into
    os.close(out)
    os.close(into)


@pytest.mark.parametrize("waits", [True, False], ids=["blocking", "not blocking"])
def test_signals_reach_the_command_while_its_output_is_blocked(
    engine: Engine,
    small_pipe: tuple[int, int],
    waits: bool,  # noqa: FBT001
) -> None:
    """A signal reaches the command while its output is blocked.

    Both streams lead to one pipe (`2>&1`) with room for the output of only one of them.
    """
    out, into = small_pipe
    os.set_blocking(into, waits)
    run_attached(engine, ["sh", "-c", _PRINTS], into, name="web")
    for count in range(1, 5):
        assert len(os.read(out, _PAGE)) == _PAGE
        until(lambda: _unread_bytes(out) == _PAGE, "the pipe is full again")
        engine.kill("web", signal.SIGUSR1)
        until(partial(_has_signals, engine, count), f"the command has {count} signals")
    engine.remove("web", force=True)


def _has_signals(engine: Engine, times: int) -> bool:
    return engine.exec("web", ["cat", "/signals"]).stdout == b"\n" * times


def _unread_bytes(out: int) -> int:
    return int.from_bytes(fcntl.ioctl(out, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_container_that_never_ran_has_an_empty_log(engine: Engine) -> None:
    """A container that never ran has an empty log.

    For an unknown container, the error has the requested name.
    """
    with pytest.raises(NotFoundError, match="nope"):
        engine.logs("nope")
    engine.create("base", FOR_EVER, name="new")
    assert list(engine.logs("new")) == []
