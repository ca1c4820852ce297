"""The table of `netmodes compare`."""

from __future__ import annotations

import json

from harness.report import compare
from harness.report.compare import Column
from harness.report.schema import Verdict
from tests.report.made import PEERS, report, result

GOOD = Column("one", report(*[result(PEERS, Verdict.KEPT, ("BR-4",))]))
BAD = Column("two", report(*[result(PEERS, Verdict.BROKEN, ("BR-4",))]))
ABSENT = Column("three", None, "exit code 4: a [bad] `thing`")


def test_table_has_a_verdict_per_requirement_and_runtime() -> None:
    """The words are pass, fail, unsupported and error; the order is the catalogue's."""
    found = {row.id: row.verdicts for row in compare.rows([GOOD, BAD, ABSENT])}
    assert found["BR-4"] == ("pass", "fail", "-")
    assert found["BR-9"] == ("untested", "untested", "-")
    assert list(found)[:2] == ["BR-4", "BR-9"]


def test_untested_requirements_are_left_out_of_the_table() -> None:
    """The JSON has all of them."""
    assert [row.id for row in compare.tested_rows([GOOD, BAD])] == ["BR-4"]
    told = json.loads(compare.as_json([GOOD, BAD]))
    assert [row["id"] for row in told["requirements"]][:2] == ["BR-4", "BR-9"]
    assert told["requirements"][0]["verdicts"] == {"one": "pass", "two": "fail"}
    assert told["runtimes"][1]["counts"]["fail"] == 1


def test_runtime_that_did_not_run_has_a_reason_and_no_column() -> None:
    """Its output is escaped."""
    text = compare.as_markdown([GOOD, ABSENT])
    assert "three: exit code 4: a &#91;bad&#93; &#96;thing&#96;" in text
    assert "| | level | one |" in text
    assert "| BR-4 | MUST | pass |" in text


def test_each_runtime_has_a_line_of_counts() -> None:
    """A runtime that did not run has the reason instead."""
    assert compare.counts(BAD).startswith("two 1.2: 0 pass, 1 fail, 0 unsupported, 0 error, ")
    assert compare.counts(ABSENT) == "three: did not run: exit code 4: a [bad] `thing`"
