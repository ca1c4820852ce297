"""Tests of `report.json` and the files beside it: their contents and when they are written."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings

from harness.report import failure_links, store
from harness.report import schema as json_file
from harness.report.render import html, markdown
from harness.report.schema import BadReport, GateResult, Report
from linux import syscalls
from tests.report import made
from tests.report.test_sanitize import Page


def without_surrogates(said: str) -> str:
    """Return the text with surrogates replaced, so that it can be written to a file."""
    return said.encode(errors="replace").decode()


@settings(deadline=None)
@given(made.hostile_reports(made.HOSTILE.map(without_surrogates)))
def test_report_survives_writing_and_reading(report: Report) -> None:
    """Writing and reading a report restores every field."""
    assert json_file.loads(json_file.dumps(report)) == report


def test_report_json_has_a_line_per_record() -> None:
    """`report.json` has one line per test, requirement and cell, so that diffs are readable."""
    lines = json_file.dumps(made.BROKEN).splitlines()
    assert sum(f'"{made.PEERS}"' in line and '"seconds"' in line for line in lines) == 1
    assert sum('"source": "a"' in line for line in lines) == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a report"),
        ("[]", "not a report"),
        ('{"version": 2}', "version 2; this program reads version 1"),
        ('{"version": 1}', "implementation"),
        ('{"version": 1, "implementation": {"name": 3}}', "$.implementation.name"),
    ],
)
def test_malformed_report_is_refused(text: str, complaint: str) -> None:
    """The error for a malformed report names the wrong version or field."""
    with pytest.raises(BadReport, match=re.escape(complaint)):
        json_file.loads(text)


def test_unknown_field_is_ignored() -> None:
    """An unknown field of a report is ignored, because later versions may add fields."""
    plain = json_file.plain(made.BROKEN) | {"weather": "fine"}
    assert json_file.loads(json.dumps(plain)) == made.BROKEN


def test_every_field_is_documented() -> None:
    """`docs/report.md` names each field of the schema."""
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    schema = msgspec.json.schema(Report)
    fields = {
        f"{name}.{field}"
        for name, part in schema["$defs"].items()
        if part.get("type") == "object" and name not in ("Promise", "Observation")
        for field in part["properties"]
    }
    assert fields
    assert {field for field in fields if f"`{field.partition('.')[2]}`" not in page} == set()


def test_report_has_all_its_files(tmp_path: Path) -> None:
    """A report consists of five files and the index of evidence, without temporary files."""
    store.write(made.BROKEN, tmp_path / "new" / "report")
    written = {item.name for item in (tmp_path / "new" / "report").iterdir()}
    assert written == {*store.NAMES, failure_links.EVIDENCE}


def test_new_run_replaces_the_earlier_report(tmp_path: Path) -> None:
    """A new run replaces the earlier report by a partial one at its start.

    A run without failures has no evidence.
    """
    store.write(made.report(made.result()), tmp_path)
    assert {item.name for item in tmp_path.iterdir()} == {*store.NAMES}
    (tmp_path / "mine.txt").write_text("not the report's")
    store.begin(made.report(partial=("the run did not finish",)), tmp_path)
    assert {item.name for item in tmp_path.iterdir()} == {json_file.NAME, "mine.txt"}
    assert json_file.load(tmp_path).partial == ("the run did not finish",)


def test_failed_write_of_a_report_keeps_the_old_file(tmp_path: Path) -> None:
    """A failed write keeps the old report file and removes the temporary file."""
    path = tmp_path / "file"
    store.replace(path, "old")
    with pytest.raises(UnicodeEncodeError):
        store.replace(path, "new" * 100_000 + "\ud800")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_junit_has_requirements_verdicts_and_evidence(tmp_path: Path) -> None:
    """The JUnit file has requirements and evidence as properties.

    Failures, errors and unsupported tests have different elements.
    """
    store.write(made.BROKEN, tmp_path)
    suite = ElementTree.parse(tmp_path / store.JUNIT).getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    peers, *_ = (case for case in suite.iter("testcase") if case.get("name") == "test_peers")
    assert [item.get("value") for item in peers.iter("property")] == ["BR-4"]
    failure = peers.find("failure")
    assert failure is not None
    assert failure.get("message") == "1 of 2 cells is wrong"
    assert "evidence/peers" in str(failure.text)


def test_evidence_has_an_index(tmp_path: Path) -> None:
    """The index of evidence lists each failure that has evidence.

    A row has the requirements, the first words of the failure and the path.
    """
    store.write(made.BROKEN, tmp_path)
    listed = (tmp_path / "evidence" / "index.md").read_text()
    entry, words, names = listed.splitlines()[2:]
    assert entry.endswith("](<peers/>) (BR-4)")
    assert words == "  1 of 2 cells is wrong"
    ways = [f"peers/{name}" for name in ("story.txt", "again.txt", "state/host.json")]
    assert re.findall(r"\(<(.*?)>\)", names) == ways


def test_page_in_another_folder_links_only_evidence_below_that_folder(tmp_path: Path) -> None:
    """A page in another folder links evidence only if it is below that folder."""
    below, beside = tmp_path / "pages" / "acme", tmp_path / "acme"
    names = ("index.md", "peers/", "peers/story.txt", "peers/again.txt", "peers/state/host.json")
    for own, led in ((below, [f"acme/evidence/{name}" for name in names]), (beside, [])):
        store.write(made.BROKEN, own)
        page = html.render([store.relocated(made.BROKEN, own, tmp_path / "pages")])
        assert re.findall(r'href="([^"#:]*evidence[^"]*)"', page) == led
    assert store.relocated(made.BROKEN, below, below) == made.BROKEN


def test_uncopied_evidence_is_named_in_the_failure(tmp_path: Path) -> None:
    """A failure whose evidence could not be copied names the original folder."""
    own, place = tmp_path / "own", tmp_path / "place"
    (own / "evidence" / "peers").mkdir(parents=True)
    place.mkdir()
    (place / "evidence").touch()
    brought = store.bring_evidence(made.BROKEN, own, place)
    (failure,) = brought.tests[0].failures
    assert (failure.evidence, failure.files) == (None, ())
    said = f"is in {own}/evidence/peers: it could not be copied (Not a directory)"
    assert (failure.sections[-1].title, failure.sections[-1].text) == ("evidence", said)
    assert store.bring_evidence(made.BROKEN, tmp_path, place) == made.BROKEN


def test_partly_copied_evidence_is_removed(tmp_path: Path) -> None:
    """Evidence that was copied only in part is removed, to make room for the report."""
    own, place = tmp_path / "own", tmp_path / "place"
    (own / "evidence" / "peers" / "state").mkdir(parents=True)
    (own / "evidence" / "peers" / "again.txt").write_text("pytest x")
    (own / "evidence" / "peers" / "state" / "host.json").write_bytes(bytes(1 << 20))
    place.mkdir()
    syscalls.mount("tmpfs", str(place), "tmpfs", 0, "size=64k")
    try:
        brought = store.bring_evidence(made.BROKEN, own, place)
        assert not (place / "evidence" / "peers").exists()
    finally:
        syscalls.umount(str(place))
    (failure,) = brought.tests[0].failures
    assert "could not be copied ([Errno 28] No space left" in failure.sections[-1].text


def test_report_without_evidence_names_is_read() -> None:
    """A report of an earlier version, which has no names of evidence files, is read.

    Its page links the evidence folder.
    """
    text = json_file.dumps(made.BROKEN)
    before = re.sub(r', "files": \[.*?\]', "", text)
    assert before != text
    page = html.render([json_file.loads(before)])
    led = ["evidence/index.md", "evidence/peers/"]
    assert re.findall(r'href="([^"#:]*evidence[^"]*)"', page) == led


def test_index_of_earlier_evidence_is_removed(tmp_path: Path) -> None:
    """The index of an earlier run's evidence is removed together with that evidence."""
    store.write(made.BROKEN, tmp_path)
    listed = tmp_path / "evidence" / "index.md"
    store.remove_evidence(tmp_path, before=listed.stat().st_mtime)
    assert listed.exists()
    store.remove_evidence(tmp_path, before=listed.stat().st_mtime + 1)
    assert not listed.exists()


@pytest.mark.parametrize(
    ("report", "message", "colour"),
    [
        (made.BROKEN, "1/2 core", "red"),
        (made.report(made.result()), "1/1 core", "lightgrey"),
        (
            made.report(made.result(requirements=["BR-4", "BR-9", "HOST-1"])),
            "3/3 core",
            "brightgreen",
        ),
        (made.report(made.result(), partial=("interrupted",)), "1/1 core, partial", "lightgrey"),
    ],
)
def test_badge_shows_kept_core_requirements(report: Report, message: str, colour: str) -> None:
    """The badge shows the number of kept core requirements.

    It is green only if the runtime conforms.
    """
    drawn = json.loads(markdown.badge(report))
    assert (drawn["schemaVersion"], drawn["message"], drawn["color"]) == (1, message, colour)


def test_numbers_of_the_page_are_in_the_json() -> None:
    """Each number on the page is also in `report.json`."""
    gate = GateResult(file="x.toml", entries=7, ok=False, new=("test 31",), known=("test 57",))
    report = made.report(*made.BROKEN.tests, matrices=made.BROKEN.matrices, gate=gate, exit=1)
    number = re.compile(r"\d+(?:\.\d+)?")
    shown = Page(html.render([report]), names=("data-tip", "aria-label")).words
    in_json = set(number.findall(json_file.dumps(report)))
    drawn = {"1", "2", "3", "4", "6"}  # routers by number; IPv4, IPv6
    assert report.totals.tests.kept == 1
    assert number.findall(shown)
    assert set(number.findall(shown)) - drawn - in_json == set()


def test_page_has_the_rerun_command() -> None:
    """The page has the command that runs the tests again, including its fault and probe."""
    environment = {**made.BROKEN.environment, "fault": "x-y", "probe": "exec"}
    page = html.render([dataclasses.replace(made.BROKEN, environment=environment)])
    assert f"pytest {made.PEERS} --runtime acme --fault x-y --probe exec<" in page
