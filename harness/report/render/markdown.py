"""The report's summary in Markdown, for a pull request or the page of a CI job, and its badge.

https://shields.io/badges/endpoint-badge defines the JSON of the badge.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence

from harness.report.sanitize import address, line, markdown, plain
from harness.report.schema import Counts, Report, RequirementResult, TestResult, Verdict

_SHOWN = 20
"""Number of failures that are shown."""
_LONGEST = 4_000
"""Maximal length of a failure in characters. GitHub accepts a mebibyte per step summary."""
_FAILING = (Verdict.BROKEN, Verdict.ERROR)


def render(report: Report) -> str:
    """Return the verdict of the report, its counts and its failures."""
    return "\n".join(_lines(report)) + "\n"


def badge(report: Report) -> str:
    """Return the JSON of the badge, which shows the number of core requirements that are kept."""
    core = report.totals.core
    tested = core.total - core.untested
    message = f"{core.kept}/{tested} core"
    if report.conforms is False:
        colour = "red" if core.broken or core.error else "orange"
    else:
        colour = "brightgreen" if report.conforms else "lightgrey"
    if not report.complete:
        message, colour = f"{message}, partial", "lightgrey"
    drawn = {
        "schemaVersion": 1,
        "label": f"netmodes: {line(report.implementation.name)}",
        "message": message,
        "color": colour,
    }
    return json.dumps(drawn) + "\n"


def _lines(report: Report) -> Iterator[str]:
    runtime = report.implementation
    yield f"## netmodes: {markdown(runtime.name)} {markdown(runtime.version or '')}".rstrip()
    yield ""
    yield f"**{verdict(report)}**"
    for reason in report.partial:
        yield f"\n**Partial:** {markdown(reason)}"
    yield ""
    yield from _table(report)
    if report.gate:
        yield from _gate(report)
    failing = [item for item in report.requirements if item.verdict in _FAILING]
    if failing:
        yield "\n### Requirements not kept\n"
        yield from map(_requirement, failing)
    tests = [test for test in report.tests if test.verdict in _FAILING]
    if tests:
        yield "\n### Failed tests\n"
        yield from _tests(tests)
    unjudged = [item for item in report.requirements if item.verdict is Verdict.UNJUDGED]
    if unjudged:
        yield "\n### Requirements not judged\n"
        yield "A test of each failed, and other requirements explain the failures.\n"
        yield ", ".join(map(_unjudged, unjudged))
    unsupported = [item for item in report.requirements if item.verdict is Verdict.UNSUPPORTED]
    if unsupported:
        yield "\n### Not supported\n"
        yield ", ".join(markdown(item.id) for item in unsupported)


def verdict(report: Report) -> str:
    """Return the verdict of the report as a sentence."""
    match report.conforms:
        case True:
            return "Conforms: every core requirement is kept and no other is broken"
        case False:
            core, rest = report.totals.core, report.totals.extended
            wrong = core.broken + core.error + rest.broken + rest.error
            if wrong:
                return f"Does not conform: {wrong} requirement{'s' * (wrong != 1)} not kept"
            return f"Does not conform: {core.unsupported} core requirements are not supported"
        case None:
            return "No tested requirement failed; some core requirements were not tested"


def _table(report: Report) -> Iterator[str]:
    names = ("kept", "broken", "error", "unjudged", "unsupported", "untested")
    yield f"| | {' | '.join(names)} | of |"
    yield "|---|" + "---:|" * (len(names) + 1)
    totals = report.totals
    rows: list[tuple[str, Counts]] = [
        ("core requirements", totals.core),
        ("extended requirements", totals.extended),
        ("tests", totals.tests),
    ]
    for title, counts in rows:
        figures = " | ".join(str(getattr(counts, name)) for name in names)
        yield f"| {title} | {figures} | {counts.total} |"
    right = totals.cells.cells - totals.cells.wrong
    yield f"| matrix cells | {right} | {totals.cells.wrong} | | | | {totals.cells.cells} |"


def _gate(report: Report) -> Iterator[str]:
    gate = report.gate
    assert gate is not None
    yield f"\n### Gate: {'passed' if gate.ok else 'failed'}\n"
    for title, names in (
        ("New failures", gate.new),
        ("Not supported, and not listed", gate.unsupported),
        ("Fixed: remove the entry", gate.fixed),
        ("Gone: remove the entry", gate.gone),
    ):
        yield from (f"- {title}: {markdown(name)}" for name in names)
    for item in gate.excused:
        bound = "more than" if item.too_many else "at most"
        link = f" ([more](<{item.link}>))" if address(item.link) else ""
        yield (
            f"- Excused: {item.count} {item.verdict}, {bound} {item.at_most} "
            f"({', '.join(map(markdown, item.tests))}), by the error pattern "
            f"“{markdown(item.saying)}”: {markdown(item.reason)}{link}"
        )
    if gate.ok:
        yield f"\n{len(gate.known)} known failures, none new, none fixed."


def _requirement(item: RequirementResult) -> str:
    sources = ", ".join(
        f"[{markdown(link.name)}](<{link.url}>)" if address(link.url) else markdown(link.name)
        for link in item.sources
    )
    links = f" ({sources})" if sources else ""
    return (
        f"- **{markdown(item.id)}** {markdown(item.level)}, {item.verdict}: "
        f"{markdown(item.statement)}{links}"
    )


def _unjudged(item: RequirementResult) -> str:
    because = f" (because of {', '.join(map(markdown, item.because))})" if item.because else ""
    return f"{markdown(item.id)}{because}"


def _tests(tests: Sequence[TestResult]) -> Iterator[str]:
    for test in tests[:_SHOWN]:
        yield f"<details><summary>{html.escape(plain(test.id))}</summary>\n"
        for failure in test.failures:
            if failure.evidence:
                yield f"Evidence: {markdown(failure.evidence)}\n"
            yield f"<pre>{_block(failure.message)}</pre>\n"
        yield "</details>"
    if len(tests) > _SHOWN:
        yield f"\n… and {len(tests) - _SHOWN} more in the report."


def _block(text: str) -> str:
    text = plain(text)
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "\n…"
    # Line breaks as references: an empty line would end the block in some renderers.
    return html.escape(text).replace("\n", "&#10;")
