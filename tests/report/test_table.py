"""Tests of the table of `netmodes compare`."""

from __future__ import annotations

import json

from harness.report import compare
from harness.report.compare import Column
from harness.report.schema import Verdict
from tests.report.made import PEERS, report, result

GOOD = Column("one", report(*[result(PEERS, Verdict.KEPT, ("BR-4",))]))
BAD = Column("two", report(*[result(PEERS, Verdict.BROKEN, ("BR-4",))]))
ABSENT = Column("three", None, "exit code 4: a [bad] `thing`")


def test_json_has_every_requirement_and_runtime() -> None:
    """The JSON has every requirement and runtime, in the order of the catalogue.

    The verdicts are pass, fail, unsupported and error.
    """
    found = json.loads(compare.as_json([GOOD, BAD, ABSENT]))
    first, second, *_ = found["requirements"]
    assert (first["id"], second["id"]) == ("BR-4", "BR-9")
    assert first["verdicts"] == {"one": "pass", "two": "fail", "three": "-"}
    assert second["verdicts"] == {"one": "untested", "two": "untested", "three": "-"}
    assert found["runtimes"][1]["counts"]["fail"] == 1
    assert found["runtimes"][2] == {"name": "three", "note": ABSENT.note}


def test_compare_table_has_runtimes_that_ran_and_tested_requirements() -> None:
    """The table has a column per runtime that ran and a row per tested requirement.

    The reason why a runtime did not run is escaped.
    """
    text = compare.as_markdown([GOOD, BAD, ABSENT])
    assert "three: exit code 4: a &#91;bad&#93; &#96;thing&#96;" in text
    assert "| | level | one | two |" in text
    assert "| BR-4 | MUST | pass | **fail** |" in text
    assert "BR-9" not in text


def test_compare_table_has_a_line_of_counts_per_runtime() -> None:
    """Each runtime has a line of counts in the table, or the reason why it did not run."""
    assert str(BAD).startswith("two 1.2: 0 pass, 1 fail, 0 unsupported, 0 error, ")
    assert str(ABSENT) == "three: did not run: exit code 4: a [bad] `thing`"
