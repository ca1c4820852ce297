"""Whose scene a failed test's evidence is of, wherever that has been made."""

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
    """Those of the scene that the evidence of `test_it` is of."""
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
    ids=["of a fixture's", "of two", "of the body", "begun by half", "the body's first"],
)
def test_it_is_of_the_scene_that_has_failed(
    project: Project, pytester: pytest.Pytester, fixtures: str, body: str, names: list[str]
) -> None:
    """One of a fixture, or in one; or one that the test itself has opened, which is up still."""
    result = project(HEAD + TEST.format(fixtures=fixtures, body=body))
    result.assert_outcomes(failed=1)
    assert containers(pytester) == names
    states = evidence_of(pytester, "::test_it") / "state"
    assert {item.stem for item in states.iterdir()} == {"host", *names}
    assert all('"error"' not in item.read_text("utf-8") for item in states.iterdir())


def test_a_fixture_that_fails_leaves_its_own(project: Project, pytester: pytest.Pytester) -> None:
    """An error, not a failure, that explains itself as well."""
    project(HEAD + TEST.format(fixtures="breaks", body="pass")).assert_outcomes(errors=1)
    assert containers(pytester) == ["made"]


def test_what_a_test_expects_leaves_nothing(project: Project, pytester: pytest.Pytester) -> None:
    """An error that ends a scene, and not the test."""
    body = """with pytest.raises(OSError), Scene(world, runtime) as scene:
        scene.container("web")
        raise OSError
"""
    project(HEAD + TEST.format(fixtures="world, runtime", body=body)).assert_outcomes(passed=1)
    assert [item.failures for item in schema.load(pytester.path / "report").tests] == [()]
    assert not list((pytester.path / "report").glob("evidence/*/"))
