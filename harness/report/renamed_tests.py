"""The renamed tests of the suites, and expectation files that have their former names."""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

from harness.report import expectations
from harness.report.expectations import Deviation, DeviationKind


class Renamed(NamedTuple):
    """The present node ids and parameters of renamed tests, by their former ones."""

    functions: Mapping[str, str]
    """Present node ids of test functions, by former ones."""
    tests: Mapping[str, str]
    """Present node ids of single tests, by former ones."""
    parameters: Mapping[str, Mapping[str, str]]
    """Present parameters by former ones, for tests whose present node id begins with the key."""

    @classmethod
    def of_suites(cls) -> Self:
        """Return the renamed tests listed in `renamed.toml` of the installed suites."""
        text = (importlib.resources.files("suites") / "renamed.toml").read_text(encoding="utf-8")
        return cls(**tomllib.loads(text))

    def present(self, node_id: str) -> str:
        """Return the present node id of a test, or `node_id` itself if the test was not renamed."""
        if node_id in self.tests:
            return self.tests[node_id]
        function, bracket, parameters = node_id.partition("[")
        function = self.functions.get(function, function)
        renamed: dict[str, str] = {}
        for beginning, words in self.parameters.items():
            if function.startswith(beginning):
                renamed |= words
        if not bracket or not renamed:
            return function + bracket + parameters
        longest_first = sorted(renamed, key=len, reverse=True)
        whole = re.compile(rf"(?<![^-])({'|'.join(map(re.escape, longest_first))})(?![^-])")
        present = whole.sub(lambda found: renamed[found[1]], parameters.removesuffix("]"))
        return f"{function}[{present}]"

    def convert(self, deviations: Collection[Deviation]) -> tuple[list[Deviation], int]:
        """Return the deviations with present node ids, and the number of those that differ.

        If several tests were merged into one, only the first of their deviations is kept.
        """
        found: dict[tuple[str, str, str, str], Deviation] = {}
        kept: list[Deviation] = []
        for item in deviations:
            if item.kind is not DeviationKind.TEST:
                kept.append(item)
                continue
            named = replace(item, id=self.present(item.id))
            found.setdefault((named.runtime, named.id, named.versions, str(named.kind)), named)
        present = [*kept, *found.values()]
        return present, len(set(deviations) - set(present))


def read(path: Path) -> tuple[list[Deviation], str, str]:
    """Return the deviations in a file with present test names, its text, and a hint.

    The hint is empty if the file has present names already. Raises as `expectations.read` does.
    """
    listed, text = expectations.read(path)
    present, former = Renamed.of_suites().convert(listed)
    hint = (
        f"expectations: {former} of {len(listed)} entries have former test names; "
        f"update them with `netmodes rename-tests {path}`"
    )
    return present, text, hint if former else ""
