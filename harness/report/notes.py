"""What every process of a run notes for the report: which tests there are, which one runs.

Registered in conformance runs, in workers as in the controlling process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness import shard
from harness.recorder import Recorder


class NodeIds:
    """Node ids as a report has them: the suites' are the same wherever they are installed."""

    def __init__(self, root: Path, suites: Path) -> None:
        self._root, self._suites = root, suites.resolve()
        self._files: dict[str, str] = {}

    def __call__(self, node_id: str) -> str:
        """`node_id`, its file named from the suites' own folder where it is in there."""
        file, colons, test = node_id.partition("::")
        if file not in self._files:
            path = (self._root / file).resolve()
            inside = path.is_relative_to(self._suites)
            shown = path.relative_to(self._suites.parent).as_posix() if inside else file
            self._files[file] = shown
        return f"{self._files[file]}{colons}{test}"


class Notes:
    """The plugin that notes."""

    def __init__(self, recorder: Recorder, node_ids: NodeIds) -> None:
        self._recorder, self._node_ids = recorder, node_ids
        self._deselected: list[str] = []

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note what there is besides what runs."""
        self._deselected += [self._node_ids(item.nodeid) for item in items]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what will run."""
        if session.items or self._deselected:
            kept = [self._node_ids(item.nodeid) for item in session.items]
            self._recorder.note_collected(kept, self._deselected)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note what runs now."""
        self._recorder.test = self._node_ids(nodeid)


class Sharding:
    """The plugin that leaves the tests of other shards to other machines."""

    def __init__(
        self, part: shard.Part, seconds: dict[str, float], recorder: Recorder, node_ids: NodeIds
    ) -> None:
        self._part, self._seconds = part, seconds
        self._recorder, self._node_ids = recorder, node_ids

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep this shard's part of what all other choices have left."""
        ids = {item: self._node_ids(item.nodeid) for item in items}
        parts = shard.assign(ids.values(), self._part.of, self._seconds)
        elsewhere = [item for item in items if parts[ids[item]] != self._part.number]
        self._recorder.elsewhere = [ids[item] for item in elsewhere]
        items[:] = [item for item in items if parts[ids[item]] == self._part.number]
        if elsewhere:
            config.hook.pytest_deselected(items=elsewhere)
