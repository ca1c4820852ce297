"""The log keeps a container's output to the last byte, and can be followed."""

from __future__ import annotations

import os
import re
import threading

import pytest

from runtime.engine import Engine
from runtime.errors import NotFoundError
from runtime.init.process import Stdio
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import until


def _ran(engine: Engine, script: str) -> str:
    found = engine.run("base", ["sh", "-c", script], network="none")
    engine.wait(found.id)
    return found.id


def test_log_lines_have_stream_and_time(engine: Engine) -> None:
    """The log has each line once, in order, with its stream and an RFC 3339 time."""
    identity = _ran(engine, "echo one; echo two; echo three >&2")
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
    """The log keeps any bytes, also the last ones before the end."""
    entries = list(engine.logs(_ran(engine, script)))
    assert b"".join(item.data for item in entries) == written
    assert all(len(item.data) <= 16384 for item in entries)


def test_followed_log_ends_with_the_container(engine: Engine) -> None:
    """Lines are seen as they are written, and the iteration ends with the container."""
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
    """Following a stopped container yields the existing lines and returns."""
    identity = _ran(engine, "echo done")
    assert [item.data for item in engine.logs(identity, follow=True)] == [b"done\n"]


def test_log_continues_across_a_restart(engine: Engine) -> None:
    """The log continues across restarts, like Docker's."""
    identity = _ran(engine, "echo again")
    engine.start(identity)
    engine.wait(identity)
    assert [item.data for item in engine.logs(identity)] == [b"again\n"] * 2


def test_output_of_an_attached_container_is_logged(engine: Engine) -> None:
    """The caller gets a copy of the log, each stream on the requested descriptor."""
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
    """The log still gets the output after the reader of the copy has exited."""
    out, writer = os.pipe()
    stdin = os.open("/dev/null", os.O_RDONLY)
    script = "echo one; while ! test -e /go; do sleep 0.01; done; echo two; exit 3"
    found = engine.run(
        "base", ["sh", "-c", script], network="none", stdio=Stdio(stdin, writer, writer)
    )
    for fd in (stdin, writer):
        os.close(fd)
    assert os.read(out, 16) == b"one\n"
    os.close(out)
    engine.exec(found.id, ["touch", "/go"])
    assert engine.wait(found.id) == 3
    assert [item.data for item in engine.logs(found.id)] == [b"one\n", b"two\n"]


def test_slow_reader_gets_all_output(engine: Engine) -> None:
    """Pid 1 waits for a slow reader as a full pipe would, and handles signals meanwhile."""
    out, writer = os.pipe()
    stdin = os.open("/dev/null", os.O_RDONLY)
    found = engine.run("base", ["seq", "40000"], network="none", stdio=Stdio(stdin, writer, writer))
    for fd in (stdin, writer):
        os.close(fd)
    with open(out, "rb") as file:
        assert file.read() == b"".join(b"%d\n" % number for number in range(1, 40001))
    assert engine.wait(found.id) == 0

    out, writer = os.pipe()
    stuck = engine.run(
        "base",
        ["sh", "-c", "trap 'exit 5' TERM; while :; do seq 1000; done"],
        network="none",
        stdio=Stdio(os.open("/dev/null", os.O_RDONLY), writer, writer),
    )
    os.close(writer)
    os.read(out, 1)
    engine.kill(stuck.id, 9)
    os.close(out)
    assert engine.wait(stuck.id) == 137


def test_logs_of_unknown_or_never_started_container(engine: Engine) -> None:
    """The error names an unknown container; a container that never ran has an empty log."""
    with pytest.raises(NotFoundError, match="nope"):
        engine.logs("nope")
    engine.create("base", FOR_EVER, name="new")
    assert list(engine.logs("new")) == []
