"""Plugins for processes that run tests: records of the tests, and selection of a shard's tests.

The records are the collected tests, the current test, and the runtime's output in failures.
Conformance runs register the plugins in every process that runs tests itself.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import pytest

from harness.adapters.protocol import RuntimeRefused
from harness.report import merge
from harness.report.recorder import NODE_ID, RUNTIME_OUTPUT, NodeIds, Recorder
from harness.report.schema import Shard


class WorkerNotes:
    """The plugin that records the collected tests, the current test and the runtime's output."""

    def __init__(self, recorder: Recorder, node_ids: NodeIds) -> None:
        self._recorder, self._node_ids = recorder, node_ids
        self._deselected: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach node id and runtime output to each report; xdist sends such attributes on."""
        report = yield
        setattr(report, NODE_ID, self._node_ids.of(item))
        if report.failed and report.when == "call":
            report.user_properties += self._recorder.compared
        if report.failed and call.excinfo is not None:
            setattr(report, RUNTIME_OUTPUT, list(runtime_output(call.excinfo.value)))
        return report

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Record the deselected tests."""
        self._deselected += [self._node_ids.of(item) for item in items]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Record the selected tests."""
        if session.items or self._deselected:
            kept = [self._node_ids.of(item) for item in session.items]
            self._recorder.note_collected(kept, self._deselected)

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Record the node id of the current test."""
        self._recorder.test = self._node_ids(nodeid, location[0])
        self._recorder.compared = []


class Sharding:
    """The plugin that deselects the tests of other shards of the run."""

    def __init__(
        self,
        shard: Shard,
        seconds: dict[str, float],
        recorder: Recorder,
        node_ids: NodeIds,
    ) -> None:
        self._shard, self._seconds = shard, seconds
        self._recorder, self._node_ids = recorder, node_ids

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Select this shard's part of the tests, after all other selections."""
        ids = {item: self._node_ids.of(item) for item in items}
        parts = merge.assign(ids.values(), self._shard.of, self._seconds)
        elsewhere = [item for item in items if parts[ids[item]] != self._shard.number]
        self._recorder.elsewhere = [ids[item] for item in elsewhere]
        items[:] = [item for item in items if parts[ids[item]] == self._shard.number]
        if elsewhere:
            config.hook.pytest_deselected(items=elsewhere)


def runtime_output(error: BaseException) -> tuple[str, ...]:
    """Return the output of the runtime for each `RuntimeRefused` that an error consists of.

    Return nothing if the error includes any other exception. An error includes its causes, its
    contexts and, if it is a group, the exceptions of the group.
    """
    words = [_output(part) for part in _chained(error, set())]
    return tuple(dict.fromkeys(filter(None, words))) if all(words) else ()


def _output(error: BaseException) -> str:
    return error.said if isinstance(error, RuntimeRefused) else ""


def _chained(error: BaseException, met: set[int]) -> Iterator[BaseException]:
    """Yield every exception that the traceback of `error` would show."""
    if id(error) in met:
        return
    met.add(id(error))
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _chained(inner, met)
    else:
        yield error
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _chained(before, met)
