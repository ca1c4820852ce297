"""A disk that is full costs no container its life, and keeps nobody from looking and removing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from linux.netns import NetNS
from linux.syscalls import mount, umount
from runtime.engine import Engine
from runtime.execute import Stdio
from runtime.logs import Writer
from runtime.state import process_born
from tests.runtime.looks import until

TALKING = "while ! test -e /dev/shm/go; do echo and so on; echo >> /dev/shm/spoken; done; exit 6"
PIPEFUL = (1 << 16) // len("and so on\n")
"""More lines than this, and pid 1 has taken some."""


@pytest.fixture
def small(root: Path) -> Iterator[Path]:
    """A file system with little room."""
    made = root / "small"
    made.mkdir()
    mount("tmpfs", str(made), "tmpfs", 0, "size=1m")
    yield made
    umount(str(made))


@pytest.fixture
def engine(small: Path, host: NetNS) -> Iterator[Engine]:
    """An engine whose state is there; with all its containers it can be removed at the end."""
    made = Engine(small)
    yield made
    made.teardown()


@contextmanager
def full(small: Path) -> Iterator[None]:
    """Take all room, and whatever is given back meanwhile when it is asked for again."""
    fill(small)
    yield
    (small / "filler").unlink()


def fill(small: Path) -> None:
    """Take all room that there is."""
    with suppress(OSError), open(small / "filler", "ab", 0) as filler:
        while filler.write(bytes(4096)):
            pass
    assert not os.statvfs(small).f_bfree


def test_a_container_goes_on_without_room_for_its_log(engine: Engine, small: Path) -> None:
    """What it writes then is lost, line by line; what finds room again is logged."""
    web = engine.run("base", ["sh", "-c", TALKING], name="web", network="none")

    def spoken() -> int:
        return int(engine.exec("web", ["wc", "-c", "/dev/shm/spoken"]).stdout.split()[0])

    with full(small):
        before = spoken()
        until(lambda: spoken() > before + PIPEFUL, "pid 1 has taken what there was no room for")
        assert engine.inspect("web").running
        entries = list(engine.logs("web"))
    until(lambda: len(list(engine.logs("web"))) > len(entries), "it is logged again")
    engine.exec("web", ["touch", "/dev/shm/go"])
    assert engine.wait("web") == 6
    assert {item.data for item in engine.logs("web")} == {b"and so on\n"}
    assert process_born(web.state.pid) == 0


def test_who_listens_gets_what_the_log_loses(engine: Engine, small: Path) -> None:
    """All of it."""
    out, writer = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    script = "while ! test -e /dev/shm/go; do sleep 0.01; done; seq 10000"
    stdio = Stdio(nothing, writer, writer)
    found = engine.run("base", ["sh", "-c", script], network="none", stdio=stdio)
    for fd in (nothing, writer):
        os.close(fd)
    engine.exec(found.id, ["touch", "/dev/shm/go"])
    with full(small), open(out, "rb") as file:
        assert file.read() == b"".join(b"%d\n" % number for number in range(1, 10001))
        assert engine.wait(found.id) == 0


def test_a_terminal_is_relayed_without_room_for_the_log(small: Path) -> None:
    """The log has whole entries, or none."""
    writer = Writer(str(small / "log"))
    writer(b"kept")
    with full(small):
        for _ in range(1000):
            writer(b"lost" * 20)
    writer.close()
    lines = (small / "log").read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"}\n") for line in lines)
    assert len(lines) < 100
