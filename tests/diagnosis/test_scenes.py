"""Tests of the evidence about a failed test's scene, the networks and containers of the test."""

from __future__ import annotations

import pytest

from harness.model import plan_file
from harness.report import schema
from tests.diagnosis.conftest import Project, evidence_of

HEAD = """
import pytest
from types import SimpleNamespace
from harness.plugin.marks import requirement
from harness.model.plan import ContainerSpec, Plan, Publish
from harness.testbench.scene import Scene

PORTS = (Publish(8080, 80),)
TWICE = Plan(containers=tuple(ContainerSpec(name, ports=PORTS) for name in ("one", "two")))

@pytest.fixture
def own(world, runtime):
    with Scene(world, runtime) as scene:
        scene.container("own")
        yield SimpleNamespace(scene=scene)

@pytest.fixture
def breaks(world, runtime):
    with Scene(world, runtime) as scene:
        scene.container("made")
        raise OSError("no more of it")
        yield scene

"""
TEST = """
@requirement("BR-4")
def test_it({fixtures}):
    {body}
"""


def containers(pytester: pytest.Pytester) -> list[str]:
    """Return the containers in the evidence of `test_it`."""
    plan = plan_file.read(evidence_of(pytester, "::test_it") / "plan.toml")
    return [item.name for item in plan.containers]


@pytest.mark.parametrize(
    ("fixtures", "body", "names"),
    [
        ("own", "assert 0", ["own"]),
        ("own, scene", "scene.container('lent'); assert 0", ["lent"]),
        (
            "world, runtime",
            "with Scene(world, runtime) as s: s.container('inner'); assert 0",
            ["inner"],
        ),
        (
            "world, runtime",
            "Scene(world, runtime, TWICE)",
            ["one"],
        ),
        (
            "own, world, runtime",
            "with Scene(world, runtime) as s: s.container('inner'); assert 0",
            ["inner"],
        ),
    ],
    ids=["fixture", "two fixtures", "test body", "half started", "test body first"],
)
def test_evidence_describes_the_failed_scene(
    project: Project, pytester: pytest.Pytester, fixtures: str, body: str, names: list[str]
) -> None:
    """The evidence describes the scene of the failed test.

    The scene may be a fixture, part of a fixture, or opened by the test.
    """
    result = project(HEAD + TEST.format(fixtures=fixtures, body=body))
    result.assert_outcomes(failed=1)
    assert containers(pytester) == names
    states = evidence_of(pytester, "::test_it") / "state"
    assert {item.stem for item in states.iterdir()} == {"host", *names}
    assert all('"error"' not in item.read_text("utf-8") for item in states.iterdir())


def test_failing_fixture_leaves_evidence(project: Project, pytester: pytest.Pytester) -> None:
    """An error in the set-up of a fixture leaves evidence, just like a failure."""
    project(HEAD + TEST.format(fixtures="breaks", body="pass")).assert_outcomes(errors=1)
    assert containers(pytester) == ["made"]


def test_expected_error_leaves_no_evidence(project: Project, pytester: pytest.Pytester) -> None:
    """If a test passes because it expects the error that ends a scene, no evidence is left."""
    body = """with pytest.raises(OSError), Scene(world, runtime) as scene:
        scene.container("web")
        raise OSError
"""
    project(HEAD + TEST.format(fixtures="world, runtime", body=body)).assert_outcomes(passed=1)
    assert [item.failures for item in schema.load(pytester.path / "report").tests] == [()]
    assert not list((pytester.path / "report").glob("evidence/*/"))
