"""Runtimes side by side: what the table says."""

from __future__ import annotations

import json

from harness.report import compare
from harness.report.compare import Column
from harness.report.schema import Verdict
from tests.report.made import PEERS, report, result

GOOD = Column("one", report(*[result(PEERS, Verdict.KEPT, ("BR-4",))]))
BAD = Column("two", report(*[result(PEERS, Verdict.BROKEN, ("BR-4",))]))
ABSENT = Column("three", None, "exit code 4: a [bad] `thing`")


def test_each_requirement_has_a_verdict_with_each_runtime() -> None:
    """In the words pass, fail, unsupported, error; the catalogue's order stays."""
    found = {row.id: row.verdicts for row in compare.rows([GOOD, BAD, ABSENT])}
    assert found["BR-4"] == ("pass", "fail", "-")
    assert found["BR-9"] == ("untested", "untested", "-")
    assert list(found)[:2] == ["BR-4", "BR-9"]


def test_what_nobody_tested_is_left_out_where_it_is_shown() -> None:
    """In the table; the data have all of it."""
    assert [row.id for row in compare.tested([GOOD, BAD])] == ["BR-4"]
    told = json.loads(compare.as_json([GOOD, BAD]))
    assert [row["id"] for row in told["requirements"]][:2] == ["BR-4", "BR-9"]
    assert told["requirements"][0]["verdicts"] == {"one": "pass", "two": "fail"}
    assert told["runtimes"][1]["counts"]["fail"] == 1


def test_who_did_not_run_is_named_with_the_reason_and_has_no_column() -> None:
    """What it said acts on no page."""
    text = compare.as_markdown([GOOD, ABSENT])
    assert "three: exit code 4: a &#91;bad&#93; &#96;thing&#96;" in text
    assert "| | level | one |" in text
    assert "| BR-4 | MUST | pass |" in text


def test_a_line_about_each_counts_its_verdicts() -> None:
    """And tells why there are none."""
    assert compare.counts(BAD).startswith("two 1.2: 0 pass, 1 fail, 0 unsupported, 0 error, ")
    assert compare.counts(ABSENT) == "three: did not run: exit code 4: a [bad] `thing`"
