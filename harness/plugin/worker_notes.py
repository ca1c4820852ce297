"""What every process of a run notes for the report: which tests there are, which one runs.

And what the runtime said where one fails, which only the process that ran it can tell.

Registered in conformance runs, in workers as in the controlling process.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import pytest

from harness.adapters.protocol import RuntimeRefused
from harness.report import merge
from harness.report.recorder import NODE_ID, SAID, NodeIds, Recorder


class WorkerNotes:
    """The plugin that notes."""

    def __init__(self, recorder: Recorder, node_ids: NodeIds) -> None:
        self._recorder, self._node_ids = recorder, node_ids
        self._deselected: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Have each report tell which test it is of; attributes go along to the controller."""
        report = yield
        setattr(report, NODE_ID, self._node_ids.of(item))
        if report.failed and call.excinfo is not None:
            setattr(report, SAID, list(said(call.excinfo.value)))
        return report

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note what there is besides what runs."""
        self._deselected += [self._node_ids.of(item) for item in items]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what will run."""
        if session.items or self._deselected:
            kept = [self._node_ids.of(item) for item in session.items]
            self._recorder.note_collected(kept, self._deselected)

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Note what runs now."""
        self._recorder.test = self._node_ids(nodeid, location[0])


class Sharding:
    """The plugin that leaves the tests of other shards to other machines."""

    def __init__(
        self,
        part: merge.ShardReport,
        seconds: dict[str, float],
        recorder: Recorder,
        node_ids: NodeIds,
    ) -> None:
        self._part, self._seconds = part, seconds
        self._recorder, self._node_ids = recorder, node_ids

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep this shard's part of what all other choices have left."""
        ids = {item: self._node_ids.of(item) for item in items}
        parts = merge.assign(ids.values(), self._part.of, self._seconds)
        elsewhere = [item for item in items if parts[ids[item]] != self._part.number]
        self._recorder.elsewhere = [ids[item] for item in elsewhere]
        items[:] = [item for item in items if parts[ids[item]] == self._part.number]
        if elsewhere:
            config.hook.pytest_deselected(items=elsewhere)


def said(error: BaseException) -> tuple[str, ...]:
    """What the runtime said, once for each refusal that an error consists of.

    Nothing where it is more than those: who is in a group of them, and on whose account it
    came up, counts as well.
    """
    words = [_words(part) for part in _parts(error, set())]
    return tuple(dict.fromkeys(filter(None, words))) if all(words) else ()


def _words(error: BaseException) -> str:
    return error.said if isinstance(error, RuntimeRefused) else ""


def _parts(error: BaseException, met: set[int]) -> Iterator[BaseException]:
    """Every exception that is told with this one, as a traceback would tell them."""
    if id(error) in met:
        return
    met.add(id(error))
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _parts(inner, met)
    else:
        yield error
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _parts(before, met)
