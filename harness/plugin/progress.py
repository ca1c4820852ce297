"""Progress of the property suites: a bar per test below pytest's own output.

A test of many examples reports its progress by `progress_of`. `ProgressBars` draws the bars in the
process that has the terminal, in a run with a long profile. Tests in the same process report
directly, since a thread may not exist beside them: they make namespaces and fork. Workers report
through a socket that a thread reads.

The bars are drawn on the lines below the one that pytest writes on, and erased before pytest
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
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    import hypothesis
    from rich.progress import TaskID

WORKER_INPUT: Final = "netmodes_steps"
"""Key of the worker's input: the name of an abstract socket in the sandbox, without the NUL.

A worker on another machine finds no such socket and reports nothing.
"""
_SECONDS: Final = 1.0
"""Time that the last report may wait for the reader; all other reports may be lost."""
_PERIOD: Final = 300.0
"""Seconds from which the time left is estimated: examples differ much in duration."""
_PAUSE: Final = 0.05
"""Seconds between two drawings."""
_COLUMNS: Final = 80
"""Width of a terminal that does not report its own."""
_ERASE: Final = "\x1b[J"
"""Erase from the cursor to the end of the screen."""


class StepProgress(NamedTuple):
    """The position of a test: its example, and the step within the example.

    Example 0 is the end of the test.
    """

    test: str
    example: int
    examples: int
    step: int
    steps: int


Report = Callable[[StepProgress], None]
SHOWN: Final = pytest.StashKey[Report]()
"""Draws a report, where the tests run in the process that has the terminal."""


class Steps:
    """Counts examples and states of one test, and reports each."""

    def __init__(self, position: StepProgress, report: Report) -> None:
        self._position, self._report = position, report
        self._states = 0

    def example(self) -> None:
        """Begin the next example."""
        self._states = 0
        self._position = self._position._replace(example=self._position.example + 1, step=0)
        self._report(self._position)

    def state(self) -> None:
        """Report that a state is checked; the first state comes before any step."""
        self._position = self._position._replace(step=self._states)
        self._states += 1
        self._report(self._position)


@contextmanager
def progress_of(
    config: pytest.Config, test: str, settings: hypothesis.settings, *, steps: bool = False
) -> Iterator[Steps]:
    """Yield the counter for a test that tries as many examples as `settings` say.

    `steps` is true if an example has steps.
    """
    most = settings.stateful_step_count if steps else 0
    start = StepProgress(test, 0, settings.max_examples, 0, most)
    with _reporter(config) as report:
        try:
            yield Steps(start, report)
        finally:
            report(start)


@contextmanager
def _reporter(config: pytest.Config) -> Iterator[Report]:
    name = getattr(config, "workerinput", {}).get(WORKER_INPUT)
    if name is None:
        yield config.stash.get(SHOWN, lambda _: None)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:

        def report(position: StepProgress) -> None:
            channel.settimeout(0 if position.example else _SECONDS)
            with suppress(OSError):  # no reader, or a slow one: only the display suffers
                channel.send(json.dumps(position).encode())

        with suppress(OSError):
            channel.connect(f"\0{name}")
        yield report


def register(config: pytest.Config) -> None:
    """Show the bars if standard output is a terminal that can move its cursor."""
    from rich.console import Console  # slow to load, and needed in few runs

    if sys.stdout.isatty() and not Console().is_dumb_terminal:
        config.pluginmanager.register(ProgressBars(config), "netmodes-progress-bars")


class ProgressBars:
    """The plugin that draws the bars."""

    def __init__(self, config: pytest.Config) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._config = config
        # While a test runs, pytest captures standard output.
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

    # --- reports

    def show(self, position: StepProgress) -> None:
        """Draw the position of a test; remove its bar at the end of the test."""
        with self._lock:
            if not position.example:
                self._forget(position.test)
                return
            new = position.test not in self._tasks
            if new:
                self._tasks[position.test] = self._progress.add_task("", left="")
            self._progress.update(self._tasks[position.test], **_fields(position))
            if new or time.monotonic() - self._drawn > _PAUSE:
                self._draw()

    def _forget(self, test: str) -> None:
        if test in self._tasks:
            self._progress.remove_task(self._tasks.pop(test))
            self._write(_ERASE)
            self._draw()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Pass the name of the socket to a worker."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(f"\0netmodes-{secrets.token_hex(8)}")
            self._reader.start()
        node.workerinput[WORKER_INPUT] = self._socket.getsockname()[1:].decode()

    def _read(self) -> None:
        assert self._socket is not None
        while received := self._socket.recv(1 << 16):
            self.show(StepProgress(*json.loads(received)))

    # --- drawing

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
        """Erase the bars while pytest writes."""
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
        """Remove all bars."""
        with self._lock:
            for test in list(self._tasks):
                self._forget(test)

    def pytest_unconfigure(self) -> None:
        """Close the terminal and the socket."""
        if self._socket is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.sendto(b"", self._socket.getsockname())
            self._reader.join()
            self._socket.close()
        os.close(self._terminal)


def _fields(position: StepProgress) -> dict[str, Any]:
    """Return the fields of the bar.

    While a failure is shrunk there are more examples than were asked for, and the end is unknown.
    """
    within = min(position.step / position.steps, 1.0) if position.steps else 0.0
    of = f"step {position.step} of {position.steps}" if position.steps else ""
    more = position.example > position.examples
    words = f"example {position.example}" + ("" if more else f" of {position.examples}")
    return {
        "description": f"{position.test}: {', '.join(filter(None, (words, of)))}",
        "completed": position.example - 1 + within,
        "total": None if more else position.examples,
        "left": "" if more else "left",
    }
