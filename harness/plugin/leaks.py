"""The leak guard: it compares the world after each test with its state before the test.

Only conformance runs register this module. A violation is an error in the teardown of the test. It
counts against LIFE-1 or BYS-1, whatever requirement the test checks.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from typing import Final

import pytest

from harness.adapters import registry
from harness.adapters.protocol import RuntimeBroken, RuntimeRefused
from harness.faults.selection import runtime_name
from harness.model.features import Unclaimed, sentence
from harness.probe.remote import AgentLost, UserspaceStack
from harness.report.recorder import CONTRADICTED, TROUBLE, UNSUPPORTED, breaks
from harness.world.build import World
from harness.world.leak_guard import LEFT_BEHIND, LeakGuard, Violation

GUARD: Final = pytest.StashKey[LeakGuard]()
_TROUBLED: Final = pytest.StashKey[bool]()
"""Whether a runtime broke down in a test: its leftovers are then no violation."""
_TIMEOUT: Final = "Timeout "
"""The prefix of pytest-timeout's message."""
_ADAPTERS: Final = f"{registry.__name__.rpartition('.')[0]}."
_SHARED: Final = frozenset({"module", "class", "package"})


@pytest.fixture(autouse=True)
def _leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the world before and after a test.

    The guard begins after shared fixtures are set up. It checks after the test's own fixtures end.
    """
    guard = request.config.stash.get(GUARD, None)
    if guard is None or "world" not in request.fixturenames:
        yield
        return
    guard.begin()
    yield
    guard.check()


@pytest.fixture
def guard(
    world: World,  # noqa: ARG001 # the guard watches it
    request: pytest.FixtureRequest,
) -> LeakGuard:
    """Return the guard of this worker's world, for a test whose body checks the world."""
    return request.config.stash[GUARD]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Stop the guard after an interrupt, because a container may be only partly started."""
    try:
        return (yield)
    except BaseException:
        guard = item.config.stash.get(GUARD, None)
        if guard is not None:
            guard.stand_down()
        raise


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Guard the session's world, also against leftovers of fixtures that a module shares."""
    if request.config.getoption("setupplan"):  # prints the fixtures and makes none
        return (yield)
    stash = request.config.stash
    guard = stash.get(GUARD, None)
    if guard is not None and fixturedef.scope != "function":
        if fixturedef.scope in _SHARED:
            guard.share()
            # Finalizers are called last in, first out: after the fixture's own.
            fixturedef.addfinalizer(guard.unshare)
        else:
            guard.forget()
            guard.outlive()
    made = yield
    if fixturedef.scope != "session":  # and not another test's fixture of that name
        return made
    if fixturedef.argname == "world":
        assert isinstance(made, World)
        stash[GUARD] = LeakGuard(made)
        fixturedef.addfinalizer(partial(_stop, stash))
    elif fixturedef.argname == "runtime" and guard is not None:
        guard.allow(made.dialect)  # type: ignore[attr-defined] # an Adapter, a Protocol
    return made


def _stop(stash: pytest.Stash) -> None:
    stash[GUARD].close()
    del stash[GUARD]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a violation only against the requirements that it breaks.

    - If the runtime refuses a removal after the test, that is a leak as well.
    - If the runtime crashed, hung or returned garbage, the test has an error, whatever it checks.
      Leftovers of the runtime are then errors too.
    - If the adapter does not declare a feature that the test needs, the test is unsupported. So is
      the inspection of a container with a network stack in user space.
    """
    why = ""
    if call.excinfo is not None and isinstance(call.excinfo.value, (UserspaceStack, Unclaimed)):
        why = UNSUPPORTED + _lacking(item.config, call.excinfo.value)
        # Before other plugins see it: `--exitfirst` and `--pdb` must not stop here.
        skipped = pytest.skip.Exception(why).with_traceback(call.excinfo.tb)
        call.excinfo = pytest.ExceptionInfo.from_exception(skipped)
    report = yield
    if why:
        path, line, _ = item.location
        report.longrepr = path, line or 0, f"Skipped: {why}"
    elif call.excinfo is not None:
        if _is_breakdown(item.config, call.excinfo):
            item.stash[_TROUBLED] = True
            report.user_properties.append((TROUBLE, True))
        if isinstance(call.excinfo.value, RuntimeBroken):
            report.longrepr = str(call.excinfo.value)
        found = list(_broken(call.excinfo.value, over=call.when == "teardown"))
        if isinstance(call.excinfo.value, Violation):
            report.longrepr = str(call.excinfo.value)
        if found and not item.stash.get(_TROUBLED, False):
            ids = dict.fromkeys(found)
            own = report.user_properties if call.when == "call" else []
            report.user_properties = [*own, *breaks(ids)]
            if isinstance(call.excinfo.value, Violation):
                report.user_properties += [(CONTRADICTED, id_) for id_ in ids]
    return report


def _is_breakdown(config: pytest.Config, error: pytest.ExceptionInfo[BaseException]) -> bool:
    """Return whether the runtime broke down or the test timed out.

    An exception of an adapter other than `RuntimeRefused` counts as a breakdown: the adapter cannot
    read the runtime's output, or has a bug.
    """
    match error.value:
        case RuntimeRefused():
            return False
        case RuntimeBroken() | AgentLost():
            return True
        case pytest.fail.Exception() as failed:
            return str(failed).startswith(_TIMEOUT)
    own = getattr(registry.load(runtime_name(config)), "__module__", "")
    modules = (str(entry.frame.f_globals.get("__name__")) for entry in error.traceback)
    return any(name == own or name.startswith(_ADAPTERS) for name in modules)


def _lacking(config: pytest.Config, error: UserspaceStack | Unclaimed) -> str:
    """Return the reason for "unsupported"; it names the runtime as the command line does."""
    if isinstance(error, Unclaimed):
        return sentence(runtime_name(config), error.lacking)
    return str(error)


def _broken(error: BaseException, *, over: bool) -> Iterator[str]:
    """Yield the requirements that an error breaks, whatever requirement the test checks."""
    if isinstance(error, Violation):
        yield from error.broken
    elif isinstance(error, RuntimeRefused) and over:
        yield LEFT_BEHIND
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _broken(inner, over=over)
