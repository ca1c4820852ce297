"""A caller that reads its container's output slowly, or not at all."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios
from collections.abc import Iterator
from functools import partial

import pytest

from runtime.engine import Engine
from runtime.init.process import Stdio
from tests.runtime.support.inspection import until

_PAGE = os.sysconf("SC_PAGESIZE")
_TALKS = "trap 'echo >> /told' USR1; yes & yes >&2 & while :; do wait; done"


@pytest.fixture
def narrow() -> Iterator[tuple[int, int]]:
    """Return the read end and the write end of a pipe with room for one page."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PAGE)
    yield out, into
    os.close(out)
    os.close(into)


@pytest.mark.parametrize("waits", [True, False], ids=["blocking", "not blocking"])
def test_signals_reach_the_command_while_its_output_is_blocked(
    engine: Engine,
    narrow: tuple[int, int],
    waits: bool,  # noqa: FBT001
) -> None:
    """Both streams lead to one pipe (`2>&1`) with room for the output of only one of them."""
    out, into = narrow
    os.set_blocking(into, waits)
    nothing = os.open(os.devnull, os.O_RDONLY)
    engine.run(
        "base", ["sh", "-c", _TALKS], name="web", network="none", stdio=Stdio(nothing, into, into)
    )
    os.close(nothing)
    for told in range(1, 5):
        assert len(os.read(out, _PAGE)) == _PAGE
        until(lambda: _waiting(out) == _PAGE, "the pipe is full again")
        engine.kill("web", signal.SIGUSR1)
        until(partial(_was_told, engine, told), f"it was told {told} times")
    engine.remove("web", force=True)


def _was_told(engine: Engine, times: int) -> bool:
    return engine.exec("web", ["cat", "/told"]).stdout == b"\n" * times


def _waiting(out: int) -> int:
    return int.from_bytes(fcntl.ioctl(out, termios.FIONREAD, bytes(4)), sys.byteorder)
