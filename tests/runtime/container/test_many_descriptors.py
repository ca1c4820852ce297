"""A library's caller with more descriptors than select(2) knows of."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import MydockerError
from runtime.init.process import Stdio
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import descriptors

_FD_SETSIZE = 1024


@pytest.fixture
def crowded(root: Path) -> Iterator[None]:
    """Each number below 1024 is taken."""
    with ExitStack() as stack:
        while (opened := os.open(os.devnull, os.O_RDONLY)) < _FD_SETSIZE:
            stack.callback(os.close, opened)
        os.close(opened)
        yield


def test_logs_are_followed(engine: Engine, crowded: None) -> None:
    """To the end of the container, which comes when it has nothing more to read."""
    out, into = os.pipe()
    nothing = os.open(os.devnull, os.O_WRONLY)
    stdio = Stdio(out, nothing, nothing)
    engine.run("base", ["sh", "-c", "echo hi; read"], name="web", network="none", stdio=stdio)
    entries = engine.logs("web", follow=True)
    assert next(entries).data == b"hi\n"
    for fd in (out, into, nothing):
        os.close(fd)
    assert list(entries) == []


def test_a_call_that_there_was_noroom_for_keeps_nothing(engine: Engine, lan: str) -> None:
    """Each would leave less for the next."""
    engine.run("base", FOR_EVER, network=lan)
    before = descriptors()
    for spare in range(5):
        with room_for(spare), suppress(MydockerError):
            engine.containers()
    assert descriptors() == before


@contextmanager
def room_for(spare: int) -> Iterator[None]:
    """So many descriptors can be opened yet."""
    used = {int(number) for number in os.listdir("/proc/self/fd")}
    free = [number for number in range(max(used) + spare + 2) if number not in used]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[spare], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
