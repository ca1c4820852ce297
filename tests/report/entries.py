"""Entries of an expectation file, and a report that is held against them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report import gate
from harness.report.expectations import Deviation, DeviationKind
from harness.report.schema import Failure, GateResult, Report, TestResult, Verdict
from tests.report import made
from tests.report.made import OUTSIDE, PEERS

RED = made.report(made.result(PEERS, Verdict.BROKEN), made.result(OUTSIDE, requirements=["BR-9"]))
GREEN = made.report(made.result(PEERS), made.result(OUTSIDE, requirements=["BR-9"]))
"""A run in which one test failed, and one in which none did."""
WRONG = "the cast: a → b icmp/4"
"""A cell."""
TENTATIVE = "failed to bind udp listener on [fd…]:53: IO error: Cannot assign requested address"
HEARD = TENTATIVE.replace("…", "63:1::1")
"""What a runtime says by chance, as it is listed and as it is heard."""


def listed(
    kind: DeviationKind, id_: str, verdict: Verdict = Verdict.BROKEN, **more: str
) -> Deviation:
    """An entry of the file."""
    told: dict[str, Any] = {"runtime": "acme", "reason": "known"} | more
    return Deviation(kind=kind, id=id_, verdict=verdict, **told)


def held(report: Report, *entries: Deviation, gone: Sequence[str] = ()) -> GateResult:
    """The report held against these entries."""
    return gate.compare(report, entries, file="acme.toml", gone=lambda id_: id_ in gone)


def saying(*, verdict: Verdict = Verdict.BROKEN, at_most: int = 3, **more: Any) -> Deviation:
    """An entry about what a runtime says."""
    told: dict[str, Any] = {"id": TENTATIVE, "reason": "bound too early"} | more
    return Deviation(
        runtime="acme", kind=DeviationKind.SAYING, verdict=verdict, at_most=at_most, **told
    )


def failed(when: str = "call", *said: str) -> Failure:
    """A failure that consists of what the runtime said."""
    return Failure(when=when, message=f"RuntimeRefused: {' '.join(said)}", said=said)


def met(id_: str = PEERS, verdict: Verdict = Verdict.BROKEN, **more: Any) -> TestResult:
    """A test that failed by the saying alone."""
    when = "call" if verdict is Verdict.BROKEN else "setup"
    return made.result(id_, verdict, **{"failures": (failed(when, HEARD),)} | more)
