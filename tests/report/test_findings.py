"""Tests of the findings about runtimes: `suites/findings`, its parser and generated pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.adapters import registry
from harness.model import requirements
from harness.report import findings
from harness.report.findings import BadFindings, Finding, FindingsFile
from harness.report.render import finding_pages
from tests.support.suites import function_of, functions

ROOT = Path(__file__).parents[2]
CATALOGUE = requirements.load(ROOT / "suites/requirements.toml")
FILES = findings.load(ROOT / "suites/findings", CATALOGUE)
FINDINGS = [finding for file in FILES for finding in file.finding]
HEAD = """
[runtime]
title = "acme 1.0"
about = "Start acme."
"""
ENTRY = """
[[finding]]
id = "acme-drops-replies"
runtime = ["acme"]
version = "1.0"
requirements = ["BR-4", "BR-26"]
kind = "defect"
title = "acme drops replies"
expected = "A reply arrives."
actual = "No reply arrives."
conditions = ""
shell = '''
acme run | cat
'''
upstream = ["https://github.com/acme/acme/issues/7"]
cause = ""
tests = ["suites/modes/test_bridge.py::test_peers"]
"""


def parse(text: str) -> FindingsFile:
    """Return the content of a findings file, checked against the suites' catalogue."""
    return findings.parse(text, CATALOGUE)


def test_findings_file_is_parsed() -> None:
    """A parsed findings file has the runtimes' heading, and the findings in the file's order."""
    file = parse(HEAD + ENTRY + ENTRY.replace("acme-drops", "acme-delays"))
    assert file.runtime.title == "acme 1.0"
    assert [item.id for item in file.finding] == ["acme-drops-replies", "acme-delays-replies"]
    assert file.finding[0].requirements == ("BR-4", "BR-26")
    assert file.finding[0].kind is findings.Kind.DEFECT


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version = "1.0"', "version = 1", r"finding 1 \(acme-drops-replies\): Expected `str`"),
        ('cause = ""', 'reason = ""', "unknown field `reason`"),
        ('conditions = ""', "", "missing required field `conditions`"),
        ('"defect"', '"bug"', "Invalid enum value 'bug'"),
        ('id = "acme-drops-replies"', "", r"finding 1 \(without an id\): .* `id`"),
        ("acme-drops-replies", "Acme_drops", "the id is not lower-case words with hyphens"),
        ('["acme"]', "[]", "runtime is empty"),
        ('"A reply arrives."', '""', "expected is empty"),
        ("acme drops replies", "acme drops replies.", "leave its full stop out"),
        ("BR-26", "BR-999", "there is no requirement BR-999"),
        ("test_bridge.py::test_peers", "test_bridge.py", "is not the node id of a test"),
        ("https://github.com", "github.com", "is not a web address"),
    ],
)
def test_invalid_finding_is_refused(old: str, new: str, message: str) -> None:
    """The error for an invalid finding has the finding's number and id."""
    assert old in ENTRY
    with pytest.raises(BadFindings, match=message):
        parse(HEAD + ENTRY.replace(old, new))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[runtime", "it is not TOML"),
        (ENTRY, "missing required field `runtime`"),
        (HEAD, "missing required field `finding`"),
        (HEAD + "[finding]\nid = 'x'\n", r"Expected `array`, got `object` - at `\$.finding`"),
        (HEAD + "[extra]\n" + ENTRY, "unknown field `extra`"),
        (HEAD + "author = 'x'\n" + ENTRY, "unknown field `author`"),
        (HEAD + ENTRY + ENTRY, "acme-drops-replies: two findings have this id"),
    ],
)
def test_malformed_findings_file_is_refused(text: str, message: str) -> None:
    """A findings file is refused if it is not TOML, has unknown tables or repeats an id."""
    with pytest.raises(BadFindings, match=message):
        parse(text)


def test_error_of_a_findings_file_begins_with_its_name(tmp_path: Path) -> None:
    """The error for a file in the folder of findings begins with the file's name."""
    (tmp_path / "acme.toml").write_text("[runtime")
    with pytest.raises(BadFindings, match=r"^acme\.toml: it is not TOML"):
        findings.load(tmp_path, CATALOGUE)


def test_finding_id_in_two_files_is_refused(tmp_path: Path) -> None:
    """A finding's id that another file already has is refused, because the id names a page."""
    for name in ("acme.toml", "bolt.toml"):
        (tmp_path / name).write_text(HEAD + ENTRY)
    message = r"^bolt\.toml: acme-drops-replies: acme\.toml has this id already"
    with pytest.raises(BadFindings, match=message):
        findings.load(tmp_path, CATALOGUE)


def test_page_of_a_finding_has_every_field() -> None:
    """The page of a finding shows all fields, and links the upstream report and the set-up."""
    file = parse(HEAD + ENTRY)
    text = finding_pages.page(file.finding[0], file.runtime, CATALOGUE)
    assert "\n# acme drops replies\n" in text
    assert "- Requirements: BR-4, BR-26 (SHOULD)\n" in text
    assert "- Upstream: [acme#7](https://github.com/acme/acme/issues/7)\n" in text
    assert "- Conditions: none, the default configuration shows it\n" in text
    assert "[acme 1.0](../findings.md#acme-10)" in text
    assert "```sh\nacme run | cat\n```" in text
    assert "## Cause" not in text
    assert "- `suites/modes/test_bridge.py::test_peers`\n" in text


def test_overview_links_each_finding() -> None:
    """The overview of findings has a table row for each finding, with a link to its page."""
    text = finding_pages.overview(
        [parse(HEAD + ENTRY.replace('["https', '[] # ["https'))], CATALOGUE
    )
    assert "\n## acme 1.0\n\n| requirements |" in text
    row = "[acme drops replies](findings/acme-drops-replies.md) | defect | not reported |"
    assert f"\n| BR-4, BR-26 (SHOULD) | {row}\n\nStart acme.\n" in text


def test_findings_pages_are_up_to_date(tmp_path: Path) -> None:
    """docs/ has exactly the pages that `netmodes findings --write docs` writes."""
    finding_pages.write(FILES, CATALOGUE, tmp_path)
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.md")}
    there = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs/findings").glob("*.md")}
    assert there | {Path("findings.md")} == written
    stale = [
        path
        for path in written
        if (ROOT / "docs" / path).read_bytes() != (tmp_path / path).read_bytes()
    ]
    assert not stale, "run `netmodes findings --write docs`"


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.id)
def test_finding_names_existing_tests_and_runtimes(finding: Finding) -> None:
    """Each test that a finding names exists, and `--runtime` accepts each runtime that it names."""
    for test in finding.tests:
        assert function_of(test) in functions(), test
    assert set(finding.runtime) <= set(registry.names())
