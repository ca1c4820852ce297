"""Tests of the known deviations of runtimes, `suites/expected`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from harness.report import expectations
from harness.report.expectations import DeviationKind
from harness.report.schema import Verdict

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "suites/expected").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_expected_deviation_has_a_reason_and_versions(file: Path) -> None:
    """Each expected deviation has a reason and versions of the file's runtime.

    The versions are those in which it was seen. Entries of mydocker need no versions: the file
    belongs to the same version.
    """
    for item in expectations.loads(file.read_text()):
        assert item.runtime == file.stem
        assert item.versions or item.runtime.startswith("mydocker"), item
        assert item.reason != expectations.UNEXPLAINED, item


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_expected_deviation_names_an_existing_test(file: Path) -> None:
    """Each expected deviation names an existing test; the file is sorted."""
    found = expectations.loads(file.read_text())
    assert expectations.dumps(found) == file.read_text()
    for item in found:
        if item.kind is DeviationKind.TEST:
            path, _, test = item.id.partition("::")
            name = test.partition("[")[0]
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), item


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_expected_deviation_is_among_the_findings(file: Path) -> None:
    """The findings list each expected deviation by requirement, with the upstream link."""
    findings = (ROOT / "docs/findings.md").read_text()
    for item in expectations.loads(file.read_text()):
        if item.verdict is Verdict.UNSUPPORTED:
            continue
        assert not item.link or item.link in findings, item
        if item.kind is DeviationKind.TEST:
            path, _, test = item.id.partition("::")
            assert any(re.search(rf"\b{row}\b", findings) for row in rows(ROOT / path, test)), item


def rows(path: Path, test: str) -> list[str]:
    """Return the requirements that a test is marked with."""
    name = test.partition("[")[0]
    (function,) = (
        item
        for item in ast.parse(path.read_text()).body
        if isinstance(item, ast.FunctionDef) and item.name == name
    )
    words = [ast.unparse(item) for item in function.decorator_list]
    return [row for word in words if "requirement(" in word for row in re.findall(r"'(.*?)'", word)]


def test_documented_runtimes_have_an_expectation_file() -> None:
    """Each runtime that the documentation names has an expectation file."""
    assert {"crun", "docker", "podman", "runsc"} <= {file.stem for file in FILES}
