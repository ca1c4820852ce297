"""Tests of unsupported features: undeclared ones, and those of a user-space network stack."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

FEW: Final = """
from harness.adapters.mydocker import MydockerAdapter
from harness.adapters.protocol import Feature, RuntimeRefused
from harness.model.features import of_container, of_network

class Acme(MydockerAdapter):
    name = "acme"
    features = frozenset(map(Feature, {features}))

    def _require(self, *features):
        if not self.features.issuperset(features):
            raise RuntimeRefused("something", "unknown word: see acme --help")

    def network(self, spec):
        self._require(*of_network(spec))
        return super().network(spec)

    def remove_network(self, name):
        self._require(Feature.NETWORKS)
        super().remove_network(name)

    def run(self, spec):
        self._require(*of_container(spec, self.features))
        return super().run(spec)

    def start_container(self, name):
        self._require(Feature.RESTART)
        return super().start_container(name)
"""


def claim(project: pytest.Pytester, *features: str) -> None:
    """Make `acme` a working runtime that declares these features and refuses all others."""
    Path(project.path, "site", "acme.py").write_text(FEW.format(features=features))


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=" ".join)
def test_test_that_needs_undeclared_feature_is_unsupported(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """A test that needs an undeclared feature is unsupported; the reason is reported.

    The other tests run.
    """
    claim(project, "bridge", "host", "internal")
    project.makepyfile(
        """
        import pytest
        from harness.model.plan import ALONE, CONTAINER01
        from harness.plugin.marks import requirement
        from harness.model.plan import Bridge, Nothing, Publish
        from harness.testbench.scene import Scene

        @pytest.fixture
        def alone(scene): return scene.container("alone", Nothing())

        @requirement("BR-1")
        def test_network(scene): scene.network("lan")

        @requirement("BR-2")
        def test_before(alone): pass

        @requirement("BR-3")
        def test_of_the_cast(cast): cast[ALONE]

        @requirement("BR-4")
        def test_unknown(scene): scene.container("a", Bridge("never made"))

        @requirement("BR-5")
        def test_port(scene): scene.container("a", ports=(Publish(8080, 80),))

        @requirement("BR-6")
        def test_again(scene):
            scene.container("a").stop()
            scene.start("a")

        @requirement("BR-7")
        def test_more(scene): scene.connect("a", "lan")

        @requirement("BR-8")
        def test_less(scene): scene.disconnect("a", "lan")

        @requirement("BR-9")
        def test_claimed_features(cast, scene):
            assert cast[CONTAINER01].facts().running
            scene.container("a")
            assert scene.observed() == scene.promised()

        @requirement("BR-10")
        def test_a_refusal(scene):
            scene.refusal("a", Bridge(), sysctls=(("net.ipv4.unheard_of", "1"),))
        """
    )
    result = project.runpytest_subprocess("-rs", *workers)
    result.assert_outcomes(passed=2, skipped=8)
    result.stdout.fnmatch_lines_random(
        [
            f"SKIPPED*unsupported: acme does not declare {feature}"
            for feature in ("networks", "none", "publish", "restart", "connect")
        ]
    )
    result.stdout.fnmatch_lines(["2 kept, 8 unsupported*"])


@pytest.mark.timeout(900)  # hundreds of tests; twenty seconds on an idle machine
@pytest.mark.parametrize(
    ("features", "at_least"),
    [(["bridge", "container"], 230), (["host", "none"], 20)],
    ids=["bridge", "others"],
)
def test_suites_use_only_declared_features(
    project: pytest.Pytester, features: list[str], at_least: int
) -> None:
    """No test in the suites fails on a runtime that declares only these features."""
    claim(project, *features)
    result = project.runpytest_subprocess("--pyargs", "suites", "-n", "auto", "-q")
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed", "skipped"}
    assert outcomes["passed"] >= at_least


@pytest.mark.parametrize("options", [[], ["-n", "2"], ["--pdb"]], ids=" ".join)
def test_test_that_inspects_a_userspace_stack_is_unsupported(
    project: pytest.Pytester, options: list[str]
) -> None:
    """Tests and fixtures that inspect the kernel's state are unsupported for such a container.

    `--exitfirst` and `--pdb` do not stop at such a test.
    """
    project.makepyfile(
        """
        import pytest
        from harness.plugin.marks import requirement
        from harness.probe.remote import UserspaceStack

        @pytest.fixture
        def looked_at(): raise UserspaceStack("web")

        @requirement("BR-1")
        def test_inside(): raise UserspaceStack("web")

        @requirement("BR-2")
        def test_before(looked_at): pass

        @requirement("BR-4")
        def test_kept(): pass
        """
    )
    result = project.runpytest_subprocess("-rs", *options)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*unsupported: container web has a user-space network*"])
    result.stdout.fnmatch_lines(
        ["unsupported BR-1, BR-2: container web has a user-space*", "1 kept, 2 unsupported*"]
    )
    result.stdout.no_fnmatch_line("*PDB*")


def test_leak_of_an_unsupported_test_is_reported(project: pytest.Pytester) -> None:
    """A leak is reported even if the test that leaves it turns out to be unsupported.

    The test is unsupported because the adapter cannot inspect a user-space network stack.
    """
    project.makepyfile(
        """
        import pytest
        from harness.adapters.support import programs
        from harness.probe.remote import UserspaceStack

        def cannot_be_looked_at(prefix): raise UserspaceStack("web")

        def test_leaves(world, monkeypatch):
            world.host.spawn(["sleep", "60"], log="/dev/null")
            monkeypatch.setattr(programs, "_below", cannot_be_looked_at)
            programs.search_path("/opt/acme")
        """
    )
    result = project.runpytest_subprocess("--runtime", "mydocker")
    result.stdout.fnmatch_lines(["*LIFE-1: left behind*", "broken *LIFE-1 *"])
