"""What is known of runtimes: `suites/expected`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import expectations
from harness.expectations import Kind

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "suites/expected").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_whatever_is_known_is_explained(file: Path) -> None:
    """By a reason, for the versions it was seen in, of the runtime that the file is named for.

    What is ours has the version of the file.
    """
    for item in expectations.loads(file.read_text()):
        assert item.runtime == file.stem
        assert item.versions or item.runtime.startswith("mydocker"), item
        assert item.reason != expectations.UNEXPLAINED, item


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_of_tests_that_there_are(file: Path) -> None:
    """And the file is sorted, as `--write-expect` would write it."""
    found = expectations.loads(file.read_text())
    assert expectations.dumps(found) == file.read_text()
    for item in found:
        if item.kind is Kind.TEST:
            path, _, test = item.id.partition("::")
            name = test.partition("[")[0]
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), item


def test_the_runtimes_that_are_held_against_it_have_a_file() -> None:
    """Those that the documentation speaks of."""
    assert {"crun", "docker", "podman", "runsc"} <= {file.stem for file in FILES}
