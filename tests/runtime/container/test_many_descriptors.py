"""A caller of the library with more descriptors than select(2) supports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import MydockerError
from runtime.init.process import Stdio
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.descriptors import free_descriptors
from tests.runtime.support.inspection import descriptors

_FD_SETSIZE = 1024


@pytest.fixture
def crowded(root: Path) -> Iterator[None]:
    """Use up all descriptor numbers below 1024."""
    with ExitStack() as stack:
        while (opened := os.open(os.devnull, os.O_RDONLY)) < _FD_SETSIZE:
            stack.callback(os.close, opened)
        os.close(opened)
        yield


def test_followed_log_ends_despite_many_open_descriptors(engine: Engine, crowded: None) -> None:
    """The log is followed to the end of the container, which comes when its stdin ends."""
    out, into = os.pipe()
    nothing = os.open(os.devnull, os.O_WRONLY)
    stdio = Stdio(out, nothing, nothing)
    engine.run("base", ["sh", "-c", "echo hi; read"], name="web", network="none", stdio=stdio)
    entries = engine.logs("web", follow=True)
    assert next(entries).data == b"hi\n"
    for fd in (out, into, nothing):
        os.close(fd)
    assert list(entries) == []


def test_call_without_free_descriptors_leaks_none(engine: Engine, lan: str) -> None:
    """A failed call closes all its file descriptors."""
    engine.run("base", FOR_EVER, network=lan)
    before = descriptors()
    for spare in range(5):
        with free_descriptors(spare), suppress(MydockerError):
            engine.containers()
    assert descriptors() == before
