"""Hand-made reports for tests that need no run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from harness.model.plan import Family, Observation, Outcome, Promise, Protocol
from harness.report.judge import concluded, matrix, profile
from harness.report.schema import (
    CellResult,
    Excused,
    Failure,
    GateResult,
    Implementation,
    MatrixResult,
    Report,
    ReportLink,
    RequirementResult,
    Section,
    Selection,
    Shard,
    Stage,
    StagedContainer,
    StagedNetwork,
    TestResult,
    Totals,
    Verdict,
)

PEERS = "suites/test_it.py::test_peers"
OUTSIDE = "suites/test_it.py::test_outside"
ELSEWHERE = "suites/test_other.py::test_elsewhere"


def requirement(id_: str, *, level: str = "MUST", **more: Any) -> RequirementResult:
    """Return a requirement of the catalogue."""
    needs = more.setdefault("features", ("bridge",))
    told: dict[str, Any] = {"section": "bridge", "statement": f"{id_} is kept."} | more
    return RequirementResult(id=id_, level=level, profile=profile(level, needs), **told)


ROWS = (
    requirement(
        "BR-4", sources=(ReportLink(name="RFC 792", url="https://www.rfc-editor.org/rfc/rfc792"),)
    ),
    requirement("BR-9", statement="Nobody outside reaches it."),
    requirement("HOST-1", section="host", features=("host",)),
    requirement("DNS-1", section="names", features=("dns",)),
    requirement("LIFE-1", section="life cycle", level="SHOULD"),
)


def result(
    id_: str = PEERS,
    verdict: Verdict = Verdict.KEPT,
    requirements: Sequence[str] = ("BR-4",),
    **more: Any,
) -> TestResult:
    """Return the result of a test; a failed test has a failure."""
    if verdict in (Verdict.BROKEN, Verdict.ERROR) and "failures" not in more:
        when = "call" if verdict is Verdict.BROKEN else "setup"
        more["failures"] = (Failure(when=when, message="1 of 2 cells is wrong", text="all of it"),)
    more.setdefault("seconds", 0.25)
    return TestResult(id=id_, verdict=verdict, requirements=tuple(requirements), **more)


def cell(
    source: str = "a",
    target: str = "b",
    *,
    seen: Outcome | None = Outcome.REPLY,
    asker: str = PEERS,
    family: Family = 4,
    protocol: Protocol = Protocol.ICMP,
) -> CellResult:
    """Return a matrix cell whose promise is a reply."""
    promised = Promise(Outcome.REPLY, ttl=64, requirement="BR-4", why="peers on one bridge")
    observed = None if seen is None else Observation(seen, ttl=64, rtt=0.000123)
    return CellResult(
        source=source,
        target=target,
        protocol=protocol,
        family=family,
        kept=observed is not None and promised.admits(observed),
        promised=promised,
        observed=observed,
        test=asker,
    )


STAGE = Stage(
    routers=3,
    world={
        "host": ("198.51.100.7/24",),
        "attacker": ("198.51.100.66/24",),
        "internet": ("203.0.113.10/24",),
        "br0": ("192.168.2.1/24",),
        "ns1": ("192.168.2.10/24",),
        "ns2": ("192.168.2.20/24",),
    },
    networks=(StagedNetwork(name="bridge", interface="docker0", gateways=("172.17.42.1/16",)),),
    containers=(
        StagedContainer(
            name="a", mode="bridge", networks=("bridge",), addresses=("172.17.0.1/16",)
        ),
        StagedContainer(
            name="b", mode="bridge", networks=("bridge",), addresses=("172.17.0.2/16",)
        ),
        StagedContainer(name="c", mode="host"),
        StagedContainer(name="d", mode="container:a", joined="a"),
        StagedContainer(name="e", mode="none"),
    ),
)


def cast(cells: Iterable[CellResult]) -> MatrixResult:
    """Return a matrix of the cast with these cells."""
    return matrix("the cast", list(cells), STAGE)


def report(
    *tests: TestResult,
    cells: Sequence[CellResult] = (),
    name: str = "acme",
    version: str | None = "1.2",
    **more: Any,
) -> Report:
    """Return the report of a completed run of these tests."""
    made = Report(
        generator="netmodes 0",
        implementation=Implementation(
            name=name, version=version, features=("bridge", "host"), dialect={"mac": "random"}
        ),
        started="2026-01-02T03:04:05Z",
        seconds=12.5,
        environment={"kernel": "6.12.0", "user": "ordinary", "machine": "x86_64"},
        selection=Selection(collected=len(tests), tests="t", catalogue="c"),
        requirements=ROWS,
        tests=tests,
        matrices=(cast(cells),) if cells else (),
        totals=Totals(),
    )
    return concluded(replace(made, **more))


def shards(*parts: Sequence[TestResult], **more: Any) -> list[Report]:
    """Return a report for each shard of a run."""
    return [
        report(*part, shard=Shard(number=number, of=len(parts)), **more)
        for number, part in enumerate(parts, 1)
    ]


BROKEN = report(
    result(
        PEERS,
        Verdict.BROKEN,
        failures=(
            Failure(
                when="call",
                message="1 of 2 cells is wrong",
                text="def test_peers():\n>   assert 0",
                sections=(Section(title="Captured log", text="a line"),),
                evidence="evidence/peers",
                files=("story.txt", "again.txt", "state/host.json"),
            ),
        ),
    ),
    result(OUTSIDE, Verdict.KEPT, ["BR-9"]),
    result(ELSEWHERE, Verdict.UNSUPPORTED, ["DNS-1"], reason="acme does not declare dns"),
    cells=[
        cell("a", "b", seen=Outcome.DROPPED),
        cell("a", "b", seen=Outcome.DROPPED, protocol=Protocol.TCP),
        cell("b", "a"),
        cell("a", "host"),
        cell("host", "a", seen=None),
        cell("ns1", "a", family=6),
    ],
    exit=1,
)
"""A run with one result of each kind."""


# --- hostile reports ---------------------------------------------------------------

_SPITE = st.sampled_from(
    [
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "\"'><svg onload=alert(1)>",
        "]]><!--",
        "{{ 7 * 7 }}{% raw %}",
        "\x1b]0;title\x07\x1b[2J\x1b[31m",
        "\x9b31m",
        "\r\n\x00\x08\x7f",
        "\u202e\u2066\ufeff\u2028",
        "![x](http://198.51.100.1/x.png)",
        "[x](javascript:alert(1))",
        "https://example.com www.example.com @someone #1 :smile:",
        "| a | b |\n|---|---|\n# title\n- item\n1. item\n```\ncode",
        "**b** _i_ ~~s~~ `c` <b>h</b> &amp; &#60;",
        "\ud800",
        "\ufffe\uffff",
    ]
)
HOSTILE = st.lists(_SPITE | st.text(max_size=12), min_size=1, max_size=4).map("".join).filter(bool)
"""Text that could harm the reader of a report, if it were not escaped."""


@st.composite
def hostile_reports(draw: st.DrawFn, texts: st.SearchStrategy[str] = HOSTILE) -> Report:
    """Return reports whose every free text is hostile, such as a forged report.json."""
    text = draw(st.lists(texts, min_size=35, max_size=35))
    t = iter(text)
    failing = TestResult(
        id=next(t),
        verdict=Verdict.BROKEN,
        requirements=(next(t),),
        breaks=(next(t),),
        reason=next(t),
        failures=(
            Failure(
                when="call",
                message=next(t),
                text=next(t),
                said=(next(t),),
                sections=(Section(title=next(t), text=next(t)),),
                evidence=next(t),
                files=(next(t), "story.txt"),
            ),
        ),
    )
    row = requirement(
        next(t),
        section=next(t),
        statement=next(t),
        sources=(ReportLink(name=next(t), url=next(t)),),
        dialect=("mac",),
    )
    name = next(t)
    seen = Observation(Outcome.DROPPED, code=next(t), seen_from=next(t), detail=next(t))
    wrong = replace(cell(name, next(t), seen=Outcome.DROPPED), observed=seen)
    stage = replace(
        STAGE, containers=(StagedContainer(name=name, mode=next(t), addresses=(next(t),)),)
    )
    excused = Excused(
        saying=next(t),
        verdict=Verdict.ERROR,
        reason=next(t),
        link=next(t),
        at_most=1,
        count=1,
        tests=(next(t),),
    )
    gate = GateResult(file=next(t), entries=1, ok=True, known=(next(t),), excused=(excused,))
    return report(
        failing,
        gate=gate,
        name=next(t),
        version=next(t),
        requirements=(row,),
        partial=(text[0],),
        environment={"kernel": text[1], text[2]: text[3]},
        matrices=(matrix(text[4], [wrong], stage),),
    )
