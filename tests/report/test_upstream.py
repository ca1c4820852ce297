"""Tests of the upstream bugs: `suites/upstream`, its parser, the verdicts and the page."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from harness.faults.fault import discover
from harness.model import requirements
from harness.report import upstream
from harness.report.render import coverage_page
from harness.report.upstream import BadBugs, Bug, BugFile, BugVerdict, Replayed, Verdict
from tests.support.suites import function_of, functions

ROOT = Path(__file__).parents[2]
CATALOGUE = requirements.load(ROOT / "suites/requirements.toml")
FILES = upstream.load(ROOT / "suites/upstream", CATALOGUE)
BUGS = [bug for file in FILES for bug in file.bug]
FAULTS = {fault.id: fault for fault in discover(CATALOGUE)}
HEAD = """
[project]
title = "acme"
drawn = "Every third fix."
"""
ENTRY = """
[[bug]]
ref = "moby#1"
fixed = "1.0"
behaviour = "Replies are lost."
class = "published ports"
requirements = ["BR-4"]
replay = "loses-replies"
"""
OUT = """
[[bug]]
ref = "moby#2"
fixed = "1.0"
behaviour = "A service is lost."
scope = "swarm"
"""
SEEN = "suites/modes/test_bridge.py::test_peers"


def parse(text: str) -> BugFile:
    """Return the content of a file of bugs, checked against the suites' catalogue."""
    return upstream.parse(text, CATALOGUE)


def bug(**changes: object) -> Bug:
    """Return a bug in scope with a replay."""
    (found,) = parse(HEAD + ENTRY).bug
    return msgspec.structs.replace(found, **changes)


def test_file_of_bugs_is_parsed() -> None:
    """A parsed file has the project and the bugs in the file's order."""
    file = parse(HEAD + ENTRY + OUT)
    assert file.project.title == "acme"
    assert [item.ref for item in file.bug] == ["moby#1", "moby#2"]
    assert [item.in_scope for item in file.bug] == [True, False]
    assert file.bug[0].class_ is upstream.BugClass.PORTS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('ref = "moby#1"', 'ref = "acme#1"', r"bug 1 \(acme#1\): \[links\] has no entry"),
        ("Replies are lost.", "replies lost", "the behaviour is not a full sentence"),
        ('"published ports"', '"ports"', r"bug 1 \(moby#1\): Invalid enum value 'ports'"),
        ('class = "published ports"\n', "", "a bug in scope has a class"),
        ('["BR-4"]', '["BR-400"]', "there is no requirement BR-400"),
        ('["BR-4"]', "[]", "a bug with a replay names the requirements"),
        ('"loses-replies"', '""', "without a replay, `missed` says why"),
        ('"loses-replies"', '"Loses"', "'Loses' is neither the id of a fault"),
        ('"loses-replies"', f'"{SEEN}"\nmissed = "no"', "does not miss it"),
        ('"loses-replies"', '"loses-replies"\nmissed = "No."', "leave its full stop out"),
        ('class = "published ports"', 'scope = "swarm"', "a bug out of scope has no class"),
        ('ref = "moby#1"\n', "", r"bug 1 \(without a ref\): Object missing required field `ref`"),
        ("[[bug]]", "[[bugs]]", "Object contains unknown field `bugs`"),
        ("[[bug]]", "[[bug]", "it is not TOML"),
    ],
)
def test_malformed_bug_is_refused(old: str, new: str, message: str) -> None:
    """The error for a malformed bug names the bug and the mistake."""
    with pytest.raises(BadBugs, match=message):
        parse(HEAD + ENTRY.replace(old, new))


def test_bug_of_two_records_is_refused(tmp_path: Path) -> None:
    """A bug is recorded once, in one file."""
    with pytest.raises(BadBugs, match="moby#1: two bugs have this ref"):
        parse(HEAD + ENTRY + ENTRY)
    for name in ("acme", "other"):
        (tmp_path / f"{name}.toml").write_text(HEAD + ENTRY)
    with pytest.raises(BadBugs, match=r"other.toml: moby#1: acme.toml has this bug already"):
        upstream.load(tmp_path, CATALOGUE)


CAUGHT = Replayed({"BR-4": SEEN})


@pytest.mark.parametrize(
    ("changes", "trial", "verdict", "surprise"),
    [
        ({}, CAUGHT, Verdict.CAUGHT, ""),
        ({"missed": "no test"}, CAUGHT, Verdict.CAUGHT, "tests catch it now"),
        ({"missed": "no test"}, Replayed(), Verdict.MISSED, ""),
        ({}, Replayed(), Verdict.MISSED, "no test caught loses-replies"),
        ({"requirements": ("BR-4", "BR-5")}, CAUGHT, Verdict.MISSED, "no test caught"),
        ({}, Replayed(supported=False), Verdict.UNSUPPORTED, ""),
        ({}, Replayed(broken="it raised"), Verdict.MISSED, "loses-replies failed: it raised"),
        ({}, None, Verdict.MISSED, "no fault loses-replies"),
        ({"replay": "", "missed": "no world"}, None, Verdict.MISSED, ""),
        ({"replay": SEEN}, None, Verdict.BY_READING, ""),
        ({"scope": "swarm"}, None, Verdict.OUT, ""),
    ],
)
def test_verdict_on_a_bug_follows_its_trial(
    changes: dict[str, object], trial: Replayed | None, verdict: Verdict, surprise: str
) -> None:
    """Only a trial makes a bug "caught", and a trial against the record is a surprise."""
    found = upstream.judge(bug(**changes), {"loses-replies": trial} if trial else {})
    assert found.verdict is verdict
    assert found.surprise.startswith(surprise)
    assert bool(found.surprise) == bool(surprise)


def test_page_counts_only_caught_bugs_as_caught() -> None:
    """The page has a row for each bug in scope; the share leaves unsupported bugs out."""
    verdicts = [
        upstream.judge(bug(), {"loses-replies": CAUGHT}),
        upstream.judge(bug(ref="moby#3", replay=SEEN), {}),
        upstream.judge(bug(ref="moby#4"), {"loses-replies": Replayed(supported=False)}),
        BugVerdict(parse(HEAD + OUT).bug[0], Verdict.OUT, reason="swarm"),
    ]
    project = parse(HEAD + OUT).project
    page = coverage_page.page({project: verdicts}, CATALOGUE, "acme")
    assert "| acme | 3 | 1 | 0 | 1 | 1 | 50% |" in page
    assert "[moby#1](https://github.com/moby/moby/issues/1) | 1.0 | Replies are lost." in page
    assert "| `modes/test_bridge.py::test_peers` |" in page
    assert "Out of scope: [moby#2](https://github.com/moby/moby/issues/2): swarm." in page


# --- the records of the suites ---------------------------------------------------


@pytest.mark.parametrize("item", BUGS, ids=lambda item: item.ref)
def test_replay_of_bug_is_a_fault_or_a_test(item: Bug) -> None:
    """A replay is a fault that violates the requirements of the record, or a test of the suites.

    A fault that is only a replay cites the bug.
    """
    if item.by_reading:
        assert function_of(item.replay) in functions()
    elif item.fault:
        fault = FAULTS[item.fault]
        assert set(item.requirements) <= set(fault.violates)
        assert not fault.replay or item.ref in fault.history


def test_every_replay_belongs_to_a_record() -> None:
    """Each fault that is only a replay cites bugs of `suites/upstream`, which name the fault."""
    named = {(item.fault, item.ref) for item in BUGS}
    replays = [fault for fault in FAULTS.values() if fault.replay]
    assert {(fault.id, ref) for fault in replays for ref in fault.history} <= named


def test_coverage_page_has_every_bug_of_the_suites() -> None:
    """The page `docs/coverage.md` has all records, and counts as caught what was caught."""
    page = (ROOT / "docs/coverage.md").read_text(encoding="utf-8")
    for item in BUGS:
        assert f"[{item.ref}](" in page
        assert not item.in_scope or item.behaviour in page
    total = re.search(r"^\| all \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    assert total
    in_scope = [item for item in BUGS if item.in_scope]
    assert int(total[1]) == len(in_scope)
    assert int(total[2]) <= sum(bool(item.fault) and not item.missed for item in in_scope)
