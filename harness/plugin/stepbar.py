"""A bar below pytest's own output: how far the property suites are, and how long they will take.

Registered in the process that has the terminal, in a run with a long profile. Tests in the same
process tell it directly, since there no thread may be beside them: they make namespaces and fork.
Workers tell by a socket, which a thread reads.

The bar is drawn on the lines below the one that pytest writes on, and taken away before it
writes.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Generator
from typing import Any, Final

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from harness.testbench.steps import SHOWN, WORKER_INPUT, Far

_PERIOD: Final = 300.0
"""Seconds that the time left is reckoned by: examples differ much in how long they take."""
_PAUSE: Final = 0.05
"""Seconds between two drawings."""
_COLUMNS: Final = 80
"""Of a terminal that does not say how many it has."""
_ERASE: Final = "\x1b[J"
"""From the cursor to the end of the screen."""


def register(config: pytest.Config) -> None:
    """Show a bar where there is a terminal that can move its cursor."""
    if sys.stdout.isatty() and not Console().is_dumb_terminal:
        config.pluginmanager.register(StepBar(config), "netmodes-stepbar")


class StepBar:
    """The plugin."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        # While a test runs, standard output is what is captured.
        self._terminal = os.dup(sys.stdout.fileno())
        self._console = Console(force_terminal=True, width=_COLUMNS, height=1)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            auto_refresh=False,
            speed_estimate_period=_PERIOD,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.RLock()
        self._drawn = 0.0
        self._socket: socket.socket | None = None
        self._reader = threading.Thread(target=self._read, name=type(self).__name__, daemon=True)
        config.stash[SHOWN] = self.show

    # --- what is told

    def show(self, far: Far) -> None:
        """Draw how far a test is, or no more of it when it has ended."""
        with self._lock:
            if not far.example:
                self._forget(far.test)
                return
            new = far.test not in self._tasks
            if new:
                self._tasks[far.test] = self._progress.add_task("", left="")
            self._progress.update(self._tasks[far.test], **_seen(far))
            if new or time.monotonic() - self._drawn > _PAUSE:
                self._draw()

    def _forget(self, test: str) -> None:
        if test in self._tasks:
            self._progress.remove_task(self._tasks.pop(test))
            self._write(_ERASE)
            self._draw()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker whom to tell."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(f"\0netmodes-{secrets.token_hex(8)}")
            self._reader.start()
        node.workerinput[WORKER_INPUT] = self._socket.getsockname()[1:].decode()

    def _read(self) -> None:
        assert self._socket is not None
        while told := self._socket.recv(1 << 16):
            self.show(Far(*json.loads(told)))

    # --- what is drawn

    def _draw(self) -> None:
        if not self._tasks:
            return
        self._drawn = time.monotonic()
        self._console.width = (os.get_terminal_size(self._terminal).columns or _COLUMNS) - 1
        with self._console.capture() as drawn:
            self._console.print(self._progress.get_renderable(), end="")
        bars = drawn.get().rstrip("\n").split("\n")
        column = self._config.get_terminal_writer().width_of_current_line
        back = f"\r\x1b[{len(bars)}A" + (f"\x1b[{column}C" if column else "")
        self._write("\n".join((_ERASE, *bars)) + back)

    def _write(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self) -> Generator[None, object, object]:
        """Be out of the way while pytest writes."""
        with self._lock:
            if self._tasks:
                self._write(_ERASE)
            try:
                return (yield)
            finally:
                self._draw()

    pytest_runtest_logstart = pytest_runtest_logfinish = pytest_runtest_logreport

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Nothing is left of it."""
        with self._lock:
            for test in list(self._tasks):
                self._forget(test)

    def pytest_unconfigure(self) -> None:
        """Let go of terminal and socket."""
        if self._socket is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.sendto(b"", self._socket.getsockname())
            self._reader.join()
            self._socket.close()
        os.close(self._terminal)


def _seen(far: Far) -> dict[str, Any]:
    """What is shown of it; no end where there are more than were asked for: a failure is shrunk."""
    within = min(far.step / far.steps, 1.0) if far.steps else 0.0
    of = f"step {far.step} of {far.steps}" if far.steps else ""
    more = far.example > far.examples
    words = f"example {far.example}" + ("" if more else f" of {far.examples}")
    return {
        "description": f"{far.test}: {', '.join(filter(None, (words, of)))}",
        "completed": far.example - 1 + within,
        "total": None if more else far.examples,
        "left": "" if more else "left",
    }
