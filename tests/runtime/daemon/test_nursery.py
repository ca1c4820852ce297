"""Attendants that are forked from a starter's nursery are no other than executed ones."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dns.message
import pytest

from runtime.container.prefork import Starter
from runtime.engine import Engine
from tests.runtime.conftest import FOR_EVER
from tests.runtime.daemon.dns_client import RESOLVER, ask, told
from tests.runtime.support.inspection import children, netns, processes, until


@pytest.fixture
def starter(root: Path) -> Iterator[Starter]:
    """A starter of its own; `root` first, so that it sees what is mounted there."""
    with Starter.begin() as begun:
        yield begun


@pytest.fixture
def started(engine: Engine, root: Path, lan: str, starter: Starter) -> Engine:
    """An engine with a starter, in the root of `engine`, which tidies up."""
    return Engine(root, starter=starter)


def called(title: bytes) -> set[int]:
    """The processes in this network namespace that go by a name."""
    found = set()
    for pid in processes():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            own = os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/thread-self/ns/net")
            if words[0] == title and own:
                found.add(pid)
    return found


def nursery() -> int:
    """This process's own; it may still be getting up."""
    until(lambda: bool(called(b"mydocker-nursery") & children(os.getpid())), "it has come")
    (pid,) = called(b"mydocker-nursery") & children(os.getpid())
    return pid


def test_an_attendant_is_forked_from_it(started: Engine, root: Path, lan: str) -> None:
    """In a session of its own, with nothing of the nursery's but what it was given."""
    web = started.run("base", FOR_EVER, network=lan)
    assert told(ask(web, web.name)) == {"10.9.0.2"}
    (pid,) = called(b"mydocker-attendant")
    assert children(nursery()) == {pid}
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    opened = sorted(os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2))
    assert opened == ["/dev/null", *[f"{root}/attendant.log"] * 2]
    started.remove(web.id, force=True)
    assert not called(b"mydocker-attendant")


def test_there_is_one_when_the_start_returns(started: Engine, lan: str) -> None:
    """Be it still getting up: what comes with a container does not come after it."""
    web = started.run("base", FOR_EVER, network=lan)
    assert children(nursery())
    started.remove(web.id, force=True)


def test_attendants_outlive_it(engine: Engine, started: Engine, lan: str, starter: Starter) -> None:
    """They go on answering, and end with the last container."""
    web = started.run("base", FOR_EVER, network=lan)
    own = nursery()
    starter.close()
    assert own not in processes()
    assert told(ask(web, web.name)) == {"10.9.0.2"}
    engine.remove(web.id, force=True)
    assert not called(b"mydocker-attendant")


def test_who_hangs_up_before_the_answers_ends_nobodys(started: Engine, lan: str) -> None:
    """What the kernel does by default to whoever writes to a closed connection is to kill it."""
    web = started.run("base", FOR_EVER, network=lan)
    question = dns.message.make_query(web.name, "A").to_wire()
    until(lambda: told(ask(web, web.name)) == {"10.9.0.2"}, "it has come")
    (before,) = called(b"mydocker-attendant")
    with netns(web) as space:
        for _ in range(20):
            with space.socket(socket.AF_INET, socket.SOCK_STREAM) as asker:
                asker.connect((RESOLVER, 53))
                asker.sendall((len(question).to_bytes(2, "big") + question) * 20)
    assert told(ask(web, web.name)) == {"10.9.0.2"}
    assert called(b"mydocker-attendant") == {before}


def test_without_it_they_are_executed(started: Engine, lan: str) -> None:
    """Somebody has killed it."""
    handle = os.pidfd_open(nursery())
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    select.select([handle], [], [])
    os.close(handle)
    web = started.run("base", FOR_EVER, network=lan)
    assert told(ask(web, web.name)) == {"10.9.0.2"}
