"""Helpers that make entries of an expectation file, and a report to compare with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report import expectations
from harness.report.expectations import Deviation, DeviationKind
from harness.report.schema import Failure, GateResult, Report, TestResult, Verdict
from tests.report import made
from tests.report.made import OUTSIDE, PEERS

CELL, REQUIREMENT, TEST = DeviationKind.CELL, DeviationKind.REQUIREMENT, DeviationKind.TEST
RED = made.report(made.result(PEERS, Verdict.BROKEN), made.result(OUTSIDE, requirements=["BR-9"]))
GREEN = made.report(made.result(PEERS), made.result(OUTSIDE, requirements=["BR-9"]))
"""Reports of a run with a failed test and of a run without."""
WRONG = "the cast: a → b icmp/4"
"""The name of a wrong cell."""
TENTATIVE = "failed to bind udp listener on [fd…]:53: IO error: Cannot assign requested address"
MESSAGE = TENTATIVE.replace("…", "63:1::1")
"""A message pattern, and a message that the pattern matches."""


def listed(
    kind: DeviationKind, id_: str, verdict: Verdict = Verdict.BROKEN, **more: str
) -> Deviation:
    """Return an entry of the expectation file."""
    fields: dict[str, Any] = {"runtime": "acme", "reason": "known"} | more
    return Deviation(kind=kind, id=id_, verdict=verdict, **fields)


def compared(report: Report, *entries: Deviation, gone: Sequence[str] = ()) -> GateResult:
    """Return the comparison of the report with these expectation entries."""
    return expectations.compare(report, entries, file="acme.toml", gone=lambda id_: id_ in gone)


def updated(report: Report, *entries: Deviation) -> tuple[Deviation, ...]:
    """Return these expectation entries as `--write-expect` changes them for the report."""
    return expectations.updated(report, entries, gone=lambda _: False)


def pattern(*, verdict: Verdict = Verdict.BROKEN, at_most: int = 3, **more: Any) -> Deviation:
    """Return an expectation entry that has a message pattern."""
    fields: dict[str, Any] = {"id": TENTATIVE, "reason": "bound too early"} | more
    return Deviation(
        runtime="acme", kind=DeviationKind.SAYING, verdict=verdict, at_most=at_most, **fields
    )


def failed(when: str = "call", *said: str) -> Failure:
    """Return a failure whose whole message is output of the runtime."""
    return Failure(when=when, message=f"RuntimeRefused: {' '.join(said)}", said=said)


def matching(id_: str = PEERS, verdict: Verdict = Verdict.BROKEN, **more: Any) -> TestResult:
    """Return the result of a test whose only failure has this message."""
    when = "call" if verdict is Verdict.BROKEN else "setup"
    return made.result(id_, verdict, **{"failures": (failed(when, MESSAGE),)} | more)


TWO_VERSIONS = """
[[deviation]]
runtime = "{0}"
versions = ">=5.4,<5.5"
test = "a"
reason = "known"
[[deviation]]
runtime = "{0}"
versions = ">=5.6,<5.7"
test = "b"
reason = "known"
"""
"""Expectation file of the runtime {0}, with entries for two versions."""
