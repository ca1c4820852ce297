"""Many sabotaged runs in one pytest session: collected once, then a fork for each fault.

Each fork builds a world of its own, as a worker does, and runs just the tests that are to
catch its fault, until they have. So a fault costs a world and a few tests, not a pytest.
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
"""Seconds that one fork may take. It takes one or two."""
NEIGHBOURS: Final = 8
"""How many requirements nearby must hold nevertheless, where a fault is narrow."""

Told = Callable[[FaultVerdict], None]
Begun = Callable[[Fault | None], None]
"""Is told of what is tried next; of no fault, where it is the healthy runtime."""


@dataclass(slots=True)
class Trial:
    """One fork: the tests to run, and what it has told so far. No fault: the control."""

    fault: Fault | None
    victims: list[pytest.Item]
    neighbours: list[pytest.Item] = field(default_factory=list)
    outcomes: list[PhaseOutcome] = field(default_factory=list)
    acted: int = 0
    began: float = 0.0
    seconds: float = 0.0
    died: str = ""
    """How it ended, where it did so before its time."""


class Trials:
    """Tries faults, `workers` at once, and tells each one's beginning, and its verdict."""

    def __init__(self, faults: Sequence[Fault], *, workers: int, told: Told, begun: Begun) -> None:
        self._faults, self._workers, self._told, self._begun = faults, workers, told, begun
        self.verdicts: list[FaultVerdict] = []
        self.unsound: dict[str, str] = {}
        """Tests that fail on the healthy runtime, and what they said."""

    def run(self, session: pytest.Session, order: list[str]) -> None:
        """Try them all; `order` are the catalogue's ids, by which neighbours are found."""
        tests = _Tests.of(session.items, order)
        trials = [tests.trial(fault) for fault in self._faults]
        used = {item: None for trial in trials for item in (*trial.victims, *trial.neighbours)}
        controls = list(_controls([item for item in session.items if item in used], self._workers))
        for done in _carried_out(session, [*controls, *trials], self._workers, self._begun):
            if done.fault is None:
                self._learn(done)
            else:
                verdict = self._verdict(done, tests)
                self.verdicts.append(verdict)
                self._told(verdict)
        # A control that ended late may take a killer away.
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
    """The tests that the runtime supports, by requirement, in the catalogue's order."""

    by_requirement: dict[str, list[pytest.Item]]
    known: frozenset[str]
    """The requirements of every test, supported or not."""
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
        """The tests of what a fault violates; where it is narrow, of what is nearby too."""
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
        """The tests of a requirement, those first that are about little else."""
        return sorted(self.by_requirement.get(id_, []), key=lambda item: len(required(item)) > 2)

    def _nearby(self, id_: str) -> list[str]:
        here = self.order.index(id_)
        return sorted(self.order, key=lambda other: abs(self.order.index(other) - here))


def required(item: pytest.Item) -> tuple[str, ...]:
    """The requirements that a test is of, as the plugin has noted them."""
    return tuple(str(value) for name, value in item.user_properties if name == "requirement")


def _controls(items: list[pytest.Item], workers: int) -> Iterator[Trial]:
    """The healthy runtime's trials: every test that is used, a few modules to each."""
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


def _carried_out(
    session: pytest.Session, trials: Iterable[Trial], workers: int, begun: Begun
) -> Iterator[Trial]:
    """Have each trial done in a fork of its own, `workers` at once; each as it ends."""
    waiting = list(trials)[::-1]
    running: dict[int, tuple[Trial, int, bytearray]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                trial = waiting.pop()
                begun(trial.fault)
                trial.began = time.monotonic()
                read, pid = _forked(session, trial)
                running[read] = (trial, pid, bytearray())
            ready, _, _ = select.select(list(running), [], [], 1.0)
            for fd in ready:
                trial, pid, said = running[fd]
                data = os.read(fd, 1 << 16)
                said += data
                if not data:
                    code = _end(fd, pid)
                    del running[fd]
                    _take(trial, bytes(said), code)
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


def _take(trial: Trial, said: bytes, code: int) -> None:
    trial.seconds = time.monotonic() - trial.began
    trial.died = f"its trial did not come to its end: {_how(code, trial.seconds)}"
    *lines, _ = said.decode().split("\n")  # what was not written to its end tells nothing
    for line in lines:
        told = json.loads(line)
        if "acted" in told:
            trial.acted, trial.died = told["acted"], ""
        elif "raised" in told:
            trial.died = f"its trial did not come to its end: {told['raised']} was raised"
        else:
            told = {key: tuple(val) if isinstance(val, list) else val for key, val in told.items()}
            trial.outcomes.append(PhaseOutcome(**told))


def _how(code: int, seconds: float) -> str:
    """How a process ended that has not said that it was done."""
    if code >= 0:
        return f"its process ended with exit status {code}"
    if seconds > BOUND:
        return f"it was killed after {BOUND:.0f} s"
    return f"its process was killed by {signal.Signals(-code).name}"


def _forked(session: pytest.Session, trial: Trial) -> tuple[int, int]:
    read, write = os.pipe()
    pid = quiet_fork()
    if not pid:
        os.close(read)
        _try(session, trial, write)
    os.close(write)
    return read, pid


def _try(session: pytest.Session, trial: Trial, write: int) -> NoReturn:
    """Be the fork: run the tests until the fault is caught, and tell each outcome at once."""
    witness = _Witness(write)
    try:
        manager = session.config.pluginmanager
        manager.register(witness, "netmodes-witness")
        if terminal := manager.get_plugin("terminalreporter"):
            manager.unregister(terminal)
        if trial.fault is not None:
            session.config.stash[FAULT] = trial.fault
        _run(session, trial, witness)
        with contextlib.suppress(BaseException):  # what fails here, tests have told
            session._setupstate.teardown_exact(None)
        made = session.config.stash.get(SABOTAGED, [])
        witness.send(acted=sum(adapter.acted for adapter in made))
    except BaseException as error:  # what ends a whole run
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
    """Tells what each phase of each test did."""

    def __init__(self, write: int) -> None:
        self._write = write
        self.outcomes: list[PhaseOutcome] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note a phase as it is reported in the end."""
        report = yield
        breaks = tuple(str(value) for name, value in report.user_properties if name == "breaks")
        error, said = "", ""
        if report.failed and call.excinfo is not None:
            error, said = _told(call.excinfo)
        own = required(item)
        self.note(PhaseOutcome(item.nodeid, str(report.when), own, breaks, error, said))
        return report

    def move_on(self, session: pytest.Session, item: pytest.Item) -> None:
        """Tear down what the next test does not share, where it is not the one foreseen."""
        try:
            session._setupstate.teardown_exact(item)
        except Exception as error:
            breaks = tuple(getattr(error, "broken", ()))
            said = (str(error).splitlines() or [""])[0]
            self.note(PhaseOutcome("shared", "teardown", (), breaks, type(error).__name__, said))

    def note(self, outcome: PhaseOutcome) -> None:
        """Keep an outcome, and tell the parent."""
        self.outcomes.append(outcome)
        self.send(**outcome._asdict())

    def send(self, **told: Any) -> None:
        """Write a line to the parent."""
        os.write(self._write, json.dumps(told).encode() + b"\n")


def _told(excinfo: pytest.ExceptionInfo[BaseException]) -> tuple[str, str]:
    """The type of an exception, and its first line."""
    said = (str(excinfo.value).splitlines() or [""])[0][:300]
    chain: BaseException | None = excinfo.value
    while chain is not None:
        if type(chain).__name__ == "FaultFailed":
            return "FaultFailed", str(chain).splitlines()[0]
        chain = chain.__cause__ or chain.__context__
    if said.startswith("Timeout") and "pytest-timeout" in said:
        return "PytestTimeout", said
    return excinfo.typename, said
