"""Trials of many faults in one pytest session, each in a fork of the session.

Tests are collected once. A fork builds its own world, as a worker does. It runs only the tests that
should catch its fault, and stops when the fault is caught. A fault therefore costs a world and a
few tests instead of a whole pytest run.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import pytest

from harness.faults.fault import Fault
from harness.faults.selection import FAULT, SABOTAGED
from harness.faults.verdicts import FaultVerdict, PhaseOutcome, judge, kills
from harness.world.host import quiet_fork

BOUND: Final = 240.0
"""Time limit of one fork, in seconds; a fork usually takes one or two."""
NEIGHBOURS: Final = 8
"""The number of nearby requirements that must hold for a narrow fault."""

OnVerdict = Callable[[FaultVerdict], None]
OnStart = Callable[[Fault | None], None]
"""Callback with the fault that is tried next; `None` is the healthy runtime."""


@dataclass(slots=True)
class Trial:
    """Trial of one fault in a fork: its tests, and its outcomes so far.

    A trial without a fault is a control.
    """

    fault: Fault | None
    victims: list[pytest.Item]
    neighbours: list[pytest.Item] = field(default_factory=list)
    outcomes: list[PhaseOutcome] = field(default_factory=list)
    acted: int = 0
    began: float = 0.0
    seconds: float = 0.0
    died: str = ""
    """Reason for an early end of the fork."""


class Trials:
    """Runner of trials, `workers` at a time; calls back at each start and each verdict."""

    def __init__(
        self, faults: Sequence[Fault], *, workers: int, on_verdict: OnVerdict, on_start: OnStart
    ) -> None:
        self._faults, self._workers = faults, workers
        self._on_verdict, self._on_start = on_verdict, on_start
        self.verdicts: list[FaultVerdict] = []
        self.unsound: dict[str, str] = {}
        """Tests that fail on the healthy runtime, with their messages."""

    def run(self, session: pytest.Session, order: list[str]) -> None:
        """Try all faults; `order` has all requirement ids and defines which ones are nearby."""
        import pyroute2  # noqa: F401 # once, before the forks: it takes a tenth of a second

        tests = _Tests.of(session.items, order)
        trials = [tests.trial(fault) for fault in self._faults]
        used = {item: None for trial in trials for item in (*trial.victims, *trial.neighbours)}
        controls = list(_controls([item for item in session.items if item in used], self._workers))
        for done in _run_trials(session, [*controls, *trials], self._workers, self._on_start):
            if done.fault is None:
                self._learn(done)
            else:
                verdict = self._verdict(done, tests)
                self.verdicts.append(verdict)
                self._on_verdict(verdict)
        # A control that ended late may show that a test fails without any fault.
        self.verdicts = [self._verdict(done, tests) for done in trials]

    def _learn(self, done: Trial) -> None:
        for outcome in done.outcomes:
            if outcome.error:
                self.unsound[outcome.test] = f"{outcome.when}: {outcome.said}"
        if done.died:
            self.unsound["the control"] = done.died

    def _verdict(self, done: Trial, tests: _Tests) -> FaultVerdict:
        assert done.fault is not None
        return judge(
            done.fault,
            done.outcomes,
            tested=tests.known,
            claimed=tests.by_requirement.keys(),
            unsound=self.unsound,
            acted=done.acted,
            seconds=done.seconds,
            died=done.died,
        )


@dataclass(frozen=True, slots=True)
class _Tests:
    """The tests that the runtime supports, by requirement, in catalogue order."""

    by_requirement: dict[str, list[pytest.Item]]
    known: frozenset[str]
    """The requirements of all tests, supported or not."""
    order: list[str]

    @classmethod
    def of(cls, items: Iterable[pytest.Item], order: list[str]) -> _Tests:
        found: dict[str, list[pytest.Item]] = {}
        known: set[str] = set()
        for item in items:
            known |= set(required(item))
            if item.get_closest_marker("skip") is None:
                for id_ in required(item):
                    found.setdefault(id_, []).append(item)
        return cls(found, frozenset(known), order)

    def trial(self, fault: Fault) -> Trial:
        """Return the trial of a fault: the tests of the requirements that it violates.

        For a narrow fault the trial has tests of nearby requirements too.
        """
        victims = {item: None for id_ in fault.violates for item in self._specific(id_)}
        neighbours: dict[pytest.Item, None] = {}
        if fault.narrow:
            named = {*fault.violates, *fault.also}
            for id_ in self._nearby(fault.violates[0]):
                fitting = (t for t in self._specific(id_) if not named & set(required(t)))
                if id_ not in named and (item := next(fitting, None)):
                    neighbours[item] = None
                if len(neighbours) == NEIGHBOURS:
                    break
        return Trial(fault, list(victims), list(neighbours))

    def _specific(self, id_: str) -> list[pytest.Item]:
        """Return the tests of a requirement, first the tests with few other requirements."""
        return sorted(self.by_requirement.get(id_, []), key=lambda item: len(required(item)) > 2)

    def _nearby(self, id_: str) -> list[str]:
        here = self.order.index(id_)
        return sorted(self.order, key=lambda other: abs(self.order.index(other) - here))


def required(item: pytest.Item) -> tuple[str, ...]:
    """Return the requirements of a test, which the pytest plugin has recorded."""
    return tuple(str(value) for name, value in item.user_properties if name == "requirement")


def _controls(items: list[pytest.Item], workers: int) -> Iterator[Trial]:
    """Yield the trials of the healthy runtime: all tests of other trials, grouped by module."""
    modules: dict[Any, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    share = max(1, len(items) // (4 * workers))
    batch: list[pytest.Item] = []
    for tests in modules.values():
        batch += tests
        if len(batch) >= share:
            yield Trial(None, batch)
            batch = []
    if batch:
        yield Trial(None, batch)


# --- forks -----------------------------------------------------------------------


def _run_trials(
    session: pytest.Session, trials: Iterable[Trial], workers: int, on_start: OnStart
) -> Iterator[Trial]:
    """Run each trial in a fork, `workers` at a time, and yield each when it ends."""
    waiting = list(trials)[::-1]
    running: dict[int, tuple[Trial, int, bytearray]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                trial = waiting.pop()
                on_start(trial.fault)
                trial.began = time.monotonic()
                read, pid = _fork(session, trial)
                running[read] = (trial, pid, bytearray())
            ready, _, _ = select.select(list(running), [], [], 1.0)
            for fd in ready:
                trial, pid, said = running[fd]
                data = os.read(fd, 1 << 16)
                said += data
                if not data:
                    code = _end(fd, pid)
                    del running[fd]
                    _read_outcomes(trial, bytes(said), code)
                    yield trial
            for trial, pid, _ in running.values():
                if time.monotonic() - trial.began > BOUND:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    finally:
        for fd, (_, pid, _) in running.items():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _end(fd, pid)


def _end(fd: int, pid: int) -> int:
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _read_outcomes(trial: Trial, said: bytes, code: int) -> None:
    trial.seconds = time.monotonic() - trial.began
    trial.died = f"the trial did not finish: {_end_reason(code, trial.seconds)}"
    *lines, _ = said.decode().split("\n")  # an incomplete last line is ignored
    for line in lines:
        told = json.loads(line)
        if "acted" in told:
            trial.acted, trial.died = told["acted"], ""
        elif "raised" in told:
            trial.died = f"the trial did not finish: it raised {told['raised']}"
        else:
            told = {key: tuple(val) if isinstance(val, list) else val for key, val in told.items()}
            trial.outcomes.append(PhaseOutcome(**told))


def _end_reason(code: int, seconds: float) -> str:
    """Return the reason why a process ended before it reported that its trial is complete."""
    if code >= 0:
        return f"its process ended with exit status {code}"
    if seconds > BOUND:
        return f"it was killed after {BOUND:.0f} s"
    return f"its process was killed by {signal.Signals(-code).name}"


def _fork(session: pytest.Session, trial: Trial) -> tuple[int, int]:
    read, write = os.pipe()
    pid = quiet_fork()
    if not pid:
        os.close(read)
        _try(session, trial, write)
    os.close(write)
    return read, pid


def _try(session: pytest.Session, trial: Trial, write: int) -> NoReturn:
    """Run the tests in the fork until the fault is caught, and report each outcome at once."""
    witness = _Witness(write)
    try:
        manager = session.config.pluginmanager
        manager.register(witness, "netmodes-witness")
        if terminal := manager.get_plugin("terminalreporter"):
            manager.unregister(terminal)
        if trial.fault is not None:
            session.config.stash[FAULT] = trial.fault
        _run(session, trial, witness)
        with contextlib.suppress(BaseException):  # the tests have reported such a failure
            session._setupstate.teardown_exact(None)
        made = session.config.stash.get(SABOTAGED, [])
        witness.send(acted=sum(adapter.acted for adapter in made))
    except BaseException as error:  # such as KeyboardInterrupt
        witness.send(raised=type(error).__name__)
    finally:
        os._exit(0)


def _run(session: pytest.Session, trial: Trial, witness: _Witness) -> None:
    left = set(trial.fault.violates) if trial.fault else set()
    items = [*trial.victims, *trial.neighbours]
    while items:
        item = items.pop(0)
        if trial.fault and item not in trial.neighbours and not left & set(required(item)):
            continue
        witness.move_on(session, item)
        following = items[0] if items else None
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if trial.fault:
            for outcome in witness.outcomes:
                left -= kills(trial.fault, outcome)


class _Witness:
    """Plugin of the fork that reports the outcome of each test phase."""

    def __init__(self, write: int) -> None:
        self._write = write
        self.outcomes: list[PhaseOutcome] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send the outcome of a test phase to the parent."""
        report = yield
        breaks = tuple(str(value) for name, value in report.user_properties if name == "breaks")
        error, said = "", ""
        if report.failed and call.excinfo is not None:
            error, said = _exception_summary(call.excinfo)
        own = required(item)
        self.note(PhaseOutcome(item.nodeid, str(report.when), own, breaks, error, said))
        return report

    def move_on(self, session: pytest.Session, item: pytest.Item) -> None:
        """Tear down the fixtures that the next test does not share, as tests may be reordered."""
        try:
            session._setupstate.teardown_exact(item)
        except Exception as error:
            breaks = tuple(getattr(error, "broken", ()))
            said = (str(error).splitlines() or [""])[0]
            self.note(PhaseOutcome("shared", "teardown", (), breaks, type(error).__name__, said))

    def note(self, outcome: PhaseOutcome) -> None:
        """Keep an outcome and send it to the parent process."""
        self.outcomes.append(outcome)
        self.send(**outcome._asdict())

    def send(self, **told: Any) -> None:
        """Write a line of JSON to the parent process."""
        os.write(self._write, json.dumps(told).encode() + b"\n")


def _exception_summary(excinfo: pytest.ExceptionInfo[BaseException]) -> tuple[str, str]:
    """Return the type of an exception and the first line of its message."""
    said = (str(excinfo.value).splitlines() or [""])[0][:300]
    chain: BaseException | None = excinfo.value
    while chain is not None:
        if type(chain).__name__ == "FaultFailed":
            return "FaultFailed", str(chain).splitlines()[0]
        chain = chain.__cause__ or chain.__context__
    if said.startswith("Timeout") and "pytest-timeout" in said:
        return "PytestTimeout", said
    return excinfo.typename, said
