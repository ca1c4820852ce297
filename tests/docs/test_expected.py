"""Tests of `suites/expected`, the known deviations of runtimes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from harness.model import requirements
from harness.report import expectations, findings
from harness.report.expectations import DeviationKind
from harness.report.findings import Finding
from harness.report.schema import Verdict
from tests.support.suites import function_of, functions

ROOT = Path(__file__).parents[2]
CATALOGUE = requirements.load(ROOT / "suites/requirements.toml")
FINDINGS = [
    finding
    for content in findings.load(ROOT / "suites/findings", CATALOGUE)
    for finding in content.finding
]
FILES = sorted((ROOT / "suites/expected").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_expected_deviation_has_a_reason_and_versions(file: Path) -> None:
    """Each expected deviation has a reason, and versions of the runtime of its file.

    The versions are those in which the deviation was seen. Entries of mydocker need no versions,
    because their file belongs to the same version.
    """
    for item in expectations.loads(file.read_text()):
        assert item.runtime == file.stem
        assert item.versions or item.runtime.startswith("mydocker"), item
        assert item.reason != expectations.UNEXPLAINED, item


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_expected_deviation_names_an_existing_test(file: Path) -> None:
    """Each expected deviation names an existing test.

    The entries of a file are sorted.
    """
    found = expectations.loads(file.read_text())
    assert expectations.dumps(found) == file.read_text()
    for item in found:
        if item.kind is DeviationKind.TEST:
            assert function_of(item.id) in functions(), item


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_expected_deviation_is_among_the_findings(file: Path) -> None:
    """For each expected deviation, a finding names its test, its requirement and its link."""
    about = [finding for finding in FINDINGS if file.stem in finding.runtime]
    known = {id_ for finding in about for id_ in finding.requirements}
    tests = {function_of(test) for finding in about for test in finding.tests}
    for item in expectations.loads(file.read_text()):
        if item.verdict is Verdict.UNSUPPORTED:
            continue
        texts = [(*finding.upstream, finding.expected, finding.cause) for finding in about]
        assert any(item.link in text for fields in texts for text in fields), item
        if item.kind is DeviationKind.TEST:
            assert known & set(rows(item.id)), item
            assert function_of(item.id) in tests, item


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.id)
def test_finding_is_an_expected_deviation_of_its_runtimes(finding: Finding) -> None:
    """Each runtime that a finding names has one of the finding's tests in its expectation file."""
    tests = set(map(function_of, finding.tests))
    for runtime in finding.runtime if tests else ():
        listed = expectations.loads((ROOT / f"suites/expected/{runtime}.toml").read_text())
        assert tests & {function_of(item.id) for item in listed}, runtime


def rows(test: str) -> list[str]:
    """Return the ids of the requirements that a test is marked with."""
    words = [ast.unparse(item) for item in functions()[function_of(test)].decorator_list]
    return [row for word in words if "requirement(" in word for row in re.findall(r"'(.*?)'", word)]


def test_documented_runtimes_have_an_expectation_file() -> None:
    """Each runtime in the documentation has an expectation file."""
    assert {"crun", "docker", "podman", "runsc"} <= {file.stem for file in FILES}
