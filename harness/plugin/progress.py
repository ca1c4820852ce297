"""Progress bars below pytest's output, one for each running test of the property suites.

A property test tries many examples. In a run with a long profile, the process that has the terminal
draws the bars. Workers report through a socket, which a thread of that process reads. Tests in that
process itself report without a thread: they make namespaces and fork, so that no thread may run
beside them.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    import hypothesis
    from rich.live import Live
    from rich.progress import TaskID

WORKER_INPUT: Final = "netmodes_steps"
"""Key of the worker's input: the name of an abstract socket in the sandbox, without the NUL.

A worker on another machine finds no such socket and reports nothing.
"""
_SECONDS: Final = 1.0
"""Seconds that a test's last report may wait for the reader; other reports may be lost."""
_PERIOD: Final = 300.0
"""Seconds from which the time left is estimated: examples differ much in duration."""


class Bar(NamedTuple):
    """The progress of one test, counted in examples. An empty text marks the end of the test."""

    test: str
    text: str = ""
    completed: float = 0
    total: int = 0


Report = Callable[[Bar], None]
SHOWN: Final = pytest.StashKey[Report]()
"""Key of the function that draws a report, in the process that has the terminal."""


class Steps:
    """Counter of the examples and states of one test; it reports each example and each state.

    `steps` is the maximal number of steps of an example, 0 if examples have no steps.
    """

    def __init__(self, report: Report, test: str, *, examples: int, steps: int = 0) -> None:
        self._report, self._test, self._examples, self._steps = report, test, examples, steps
        self._example = 0
        self._step = -1

    def example(self) -> None:
        """Count the next example."""
        self._example += 1
        self._step = -1
        self._tell(0)

    def state(self) -> None:
        """Count and report the check of a state; the first state comes before any step."""
        self._step += 1
        self._tell(self._step)

    def _tell(self, step: int) -> None:
        text = f"{self._test}: example {self._example}"
        if self._example <= self._examples:  # more are tried while a failure is shrunk
            text += f" of {self._examples}"
        done = float(self._example - 1)
        if self._steps:
            text += f", step {step} of {self._steps}"
            done += min(step / self._steps, 1.0)
        self._report(Bar(self._test, text, done, self._examples))


@contextmanager
def progress_of(
    config: pytest.Config, test: str, settings: hypothesis.settings, *, steps: bool = False
) -> Iterator[Steps]:
    """Yield the counter for a test that tries as many examples as `settings` allow.

    `steps` is true if each example is a sequence of steps.
    """
    most = settings.stateful_step_count if steps else 0
    with _reporter(config) as report:
        try:
            yield Steps(report, test, examples=settings.max_examples, steps=most)
        finally:
            report(Bar(test))


@contextmanager
def _reporter(config: pytest.Config) -> Iterator[Report]:
    name = getattr(config, "workerinput", {}).get(WORKER_INPUT)
    if name is None:
        yield config.stash.get(SHOWN, lambda _: None)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:

        def report(bar: Bar) -> None:
            channel.settimeout(0 if bar.text else _SECONDS)
            with suppress(OSError):  # no reader, or a slow one: only the display suffers
                channel.send(json.dumps(bar).encode())

        with suppress(OSError):
            channel.connect(f"\0{name}")
        yield report


def register(config: pytest.Config) -> None:
    """Register the bars if standard output is a terminal that can move its cursor."""
    from rich.console import Console  # slow to load, and needed in few runs

    console = Console()
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        config.pluginmanager.register(ProgressBars(config, *console.size), "netmodes-progress-bars")


class ProgressBars:
    """The plugin that draws the bars, and erases them before pytest writes."""

    def __init__(self, config: pytest.Config, width: int, height: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._config = config
        # While a test runs, pytest captures standard output.
        self._terminal = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(file=self._terminal, force_terminal=True, width=width, height=height),
            speed_estimate_period=_PERIOD,
        )
        self._tasks: dict[str, TaskID] = {}
        self._live: Live | None = None
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._reader = threading.Thread(target=self._read, name=type(self).__name__, daemon=True)
        config.stash[SHOWN] = self.report

    def report(self, bar: Bar) -> None:
        """Draw the progress of a test; remove its bar at the end of the test."""
        with self._lock:
            if not bar.text:
                if bar.test in self._tasks:
                    self._hide()
                    self._progress.remove_task(self._tasks.pop(bar.test))
            elif bar.test not in self._tasks:
                self._hide()
                self._tasks[bar.test] = self._progress.add_task(bar.text, total=bar.total)
            else:
                task = self._tasks[bar.test]
                self._progress.update(task, description=bar.text, completed=bar.completed)
                if self._live is not None and not self._live.auto_refresh:
                    self._live.refresh()
            self._show()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Pass the name of the socket to a worker of pytest-xdist."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(f"\0netmodes-{secrets.token_hex(8)}")
            self._reader.start()
        node.workerinput[WORKER_INPUT] = self._socket.getsockname()[1:].decode()

    def _read(self) -> None:
        assert self._socket is not None
        while received := self._socket.recv(1 << 16):
            self.report(Bar(*json.loads(received)))

    def _show(self) -> None:
        """Draw the bars on the lines below pytest's current line."""
        from rich.console import ConsoleDimensions
        from rich.live import Live

        if self._tasks and self._live is None:
            self._terminal.write("\n")
            size = os.get_terminal_size(self._terminal.fileno())
            if size.columns:  # else the size at the start
                self._progress.console.size = ConsoleDimensions(*size)
            self._live = Live(
                self._progress,
                console=self._progress.console,
                auto_refresh=self._socket is not None,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)

    def _hide(self) -> None:
        """Erase the bars, and move the cursor back to where pytest left it."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            column = self._config.get_terminal_writer().width_of_current_line
            self._terminal.write("\x1b[A" + (f"\x1b[{column}C" if column else ""))
            self._terminal.flush()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self) -> Generator[None, object, object]:
        """Erase the bars while pytest writes."""
        with self._lock:
            self._hide()
            try:
                return (yield)
            finally:
                self._show()

    pytest_runtest_logstart = pytest_runtest_logfinish = pytest_runtest_logreport

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Remove all bars."""
        with self._lock:
            self._hide()
            self._tasks.clear()

    def pytest_unconfigure(self) -> None:
        """Close the terminal and the socket."""
        if self._socket is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.sendto(b"", self._socket.getsockname())
            self._reader.join()
            self._socket.close()
        self._terminal.close()
