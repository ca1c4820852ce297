"""Fixtures that break cells by nftables rules, and that diagnose cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.diagnosis.replay import Diagnosis, Replay
from harness.model.plan import HOST, Cell, Family, Protocol
from harness.report import schema
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux import nftables, rtnetlink_dump
from linux.nftables import Expression, Nft, Table
from tests.support.programs import ROOT

ON_PURPOSE = "on purpose"
Put = Callable[..., None]
Diagnose = Callable[..., Diagnosis]


@pytest.fixture
def rule() -> Iterator[Put]:
    """Return a function that adds a rule to a namespace: `rule(place, "forward", *parts)`.

    The rule is the second of its chain, and is removed after the test.
    """
    with ExitStack() as stack:

        def put(
            place: NetnsView,
            hook: nftables.Hook,
            *parts: list[Expression],
            kind: str = "filter",
            family: str = "inet",
            policy: str = "accept",
            priority: int | None = None,
        ) -> None:
            table = Table(family, "built")
            space = stack.enter_context(place.open())
            opened = stack.enter_context(Nft(space))
            options: dict[str, Any] = {"hook": hook, "kind": kind, "policy": policy}
            usual = -150 if kind == "nat" else 5
            options["priority"] = usual if priority is None else priority
            requests = [
                nftables.add_table(table),
                nftables.add_chain(table, hook, **options),
                nftables.add_rule(table, hook, nftables.counter()),
            ]
            if parts:
                requests.append(nftables.add_rule(table, hook, *parts, comment=ON_PURPOSE))
            opened.apply(requests)
            stack.callback(opened.apply, [nftables.add_table(table), nftables.del_table(table)])

        yield put


@pytest.fixture
def diagnosed(cast: Scene) -> Diagnose:
    """Return a function that diagnoses a cell: `diagnosed("container01", "internet", "udp")`."""

    def examine(source: str, target: str, protocol: str, family: Family = 4) -> Diagnosis:
        cell = Cell(source, target, Protocol(protocol), family)
        with Replay(cast, [cell]) as examination:
            return examination.of(cell, cast.promised([cell])[cell])

    return examine


def host_end_of(cast: Scene, name: str) -> rtnetlink_dump.Link:
    """Return the end of a container's veth pair that is in the host."""
    peer = cast[name].net.links()["eth0"].peer
    return next(link for link in cast.netns(HOST).links().values() if link.ifindex == peer)


def story_text(autopsy: Diagnosis) -> str:
    """Return the explanation of a diagnosis as one text."""
    return "\n".join(autopsy.lines)


Project = Callable[..., pytest.RunResult]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a function that runs a test module in its own world: `project(text, *options)`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyprojecttoml(
        """
        [tool.pytest.ini_options]
        netmodes = true
        addopts = "-p harness.plugin"
        truncation_limit_lines = 0
        truncation_limit_chars = 0
        """
    )

    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=text)
        return pytester.runpytest_subprocess("-p", "no:randomly", *options)

    return run


def evidence_of(pytester: pytest.Pytester, test: str, report: str = "report") -> Path:
    """Return the evidence folder of a test, as named in the report."""
    story_text = schema.load(pytester.path / report)
    (failure,) = next(item for item in story_text.tests if item.id.endswith(test)).failures
    assert failure.evidence is not None
    return pytester.path / report / failure.evidence
