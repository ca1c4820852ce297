"""Tests of verdicts: from the requirements that a test is marked with to the summary."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

FOUR = """
import pytest
from harness.plugin.marks import requirement

@pytest.fixture
def trouble():
    raise OSError("of the harness")

@requirement("BR-2")
def test_broken(): assert 0

@requirement("BR-1", "BR-2")
def test_kept(): pass

@requirement("HOST-1")
def test_unsupported(): assert 0, "a test of what is not claimed must not run"

@requirement("BR-4")
def test_error(trouble): pass

def test_of_nothing(): pass
"""


NAMESAKES = """
import pytest

def test_live(scene): pass

@pytest.mark.parametrize(("runtime", "world"), [("acme", "flat")])
def test_mine(runtime, world): assert (runtime, world) == ("acme", "flat")
"""
"""Tests of a project that has its own parameters named `runtime` and `world`."""


def test_project_may_have_fixtures_of_the_same_names(project: pytest.Pytester) -> None:
    """A project may have its own fixtures named `runtime` and `world`, beside live tests.

    A live test uses the fixtures of netmodes.
    """
    project.makepyfile(NAMESAKES)
    result = project.runpytest_subprocess(
        "--sandbox=always", "--runtime=mydocker", "-p", "no:xdist"
    )
    result.assert_outcomes(passed=2)


def test_unknown_requirement_is_a_collection_error(project: pytest.Pytester) -> None:
    """An unknown requirement id is a collection error that suggests similar ids."""
    project.makepyfile(
        'from harness.plugin.marks import requirement\n@requirement("BRR-7")\ndef test_it(): pass'
    )
    result = project.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*test_it: no requirement 'BRR-7': did you mean BR-7*"])
    result.assert_outcomes(errors=1)


def test_undeclared_feature_is_unsupported(project: pytest.Pytester) -> None:
    """A test is skipped if its requirement needs an undeclared feature.

    The reason names the feature.
    """
    project.makepyfile(FOUR)
    result = project.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=2, failed=1, errors=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*unsupported: acme does not declare host"])


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=" ".join)
def test_crash_of_the_runtime_is_an_error_without_traceback(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """If the runtime crashes, the test is an error with the adapter's message.

    The error has no traceback, and the other tests run.
    """
    project.makepyfile(
        """
        from harness.adapters.protocol import RuntimeBroken
        from harness.plugin.marks import requirement

        @requirement("BR-1")
        def test_breaks(): raise RuntimeBroken("run web: it was ended by signal 11")

        @requirement("BR-2")
        def test_goes_on(): pass
        """
    )
    result = project.runpytest_subprocess(*workers)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at call of test_breaks*"])
    result.stdout.fnmatch_lines(["*run web: it was ended by signal 11*"])
    result.stdout.fnmatch_lines(["error *BR-1 *", "1 error, 1 kept, *"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_adapter_bug_lost_agent_and_timeout_are_errors(project: pytest.Pytester) -> None:
    """An adapter's bug, a lost agent and a timeout make a test an error, not a failure."""
    with Path(project.path, "site/acme.py").open("a") as acme:
        acme.write('def pid(): return int("garbage")\n')
    project.makepyfile(
        """
        import acme, pytest
        from harness.plugin.marks import requirement
        from harness.probe.remote import AgentLost

        @requirement("BR-1")
        def test_garbage(): acme.pid()

        @requirement("BR-2")
        def test_own_mistake(): int("garbage")

        @requirement("BR-3")
        def test_agent(): raise AgentLost("has ended")

        @requirement("BR-4")
        @pytest.mark.timeout(0.1)
        def test_hangs():
            while True:
                pass
        """
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=1, errors=3)
    result.stdout.fnmatch_lines_random(["error *BR-1 *", "error *BR-3 *", "error *BR-4 *"])
    result.stdout.fnmatch_lines(["broken *BR-2 *"])


def test_leak_after_a_crash_breaks_no_requirement(project: pytest.Pytester) -> None:
    """A leak after a crash of the runtime is an error and breaks no requirement.

    The next test is judged as usual.
    """
    project.makepyfile(
        """
        from harness.adapters.protocol import RuntimeBroken
        from harness.plugin.marks import requirement

        @requirement("BR-1")
        def test_breaks(world):
            world.host.spawn(["sleep", "60"], log="/dev/null")
            raise RuntimeBroken("run web: it hung")

        def test_leaves(world): world.host.spawn(["sleep", "60"], log="/dev/null")
        """
    )
    arguments = ("--runtime", "mydocker")
    result = project.runpytest_subprocess(*arguments, "-k", "not leaves")
    result.stdout.fnmatch_lines(["*LIFE-1: left behind*", "error *BR-1 *", "1 error, *"])
    result.stdout.no_fnmatch_line("broken *")
    result = project.runpytest_subprocess(*arguments)
    result.stdout.fnmatch_lines(["broken *LIFE-1 *"])
    result.assert_outcomes(passed=1, failed=1, errors=2)
    result.stdout.fnmatch_lines(["FAILED *::test_leaves*"])


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=" ".join)
def test_summary_counts_each_requirement_once(project: pytest.Pytester, workers: list[str]) -> None:
    """The summary counts each requirement once, by the most severe verdict of its tests."""
    project.makepyfile(FOUR)
    result = project.runpytest_subprocess(*workers)
    result.stdout.fnmatch_lines(
        [
            "*acme: requirements*",
            "broken      BR-2    MUST   *",
            "error       BR-4    MUST   *",
            "unsupported HOST-1: acme does not declare *",
            "1 broken, 1 error, 1 kept, 1 unsupported, * not tested in this run",
        ]
    )
    result.stdout.no_fnmatch_line("kept *")


def test_summary_names_fewest_missing_features(project: pytest.Pytester) -> None:
    """The summary names the missing features of the test that lacks the fewest.

    It omits features that only other tests of the requirement need.
    """
    project.makepyfile(
        """
        from harness.plugin.marks import requirement

        @requirement("HOST-1", "NONE-1")
        def test_both(): pass

        @requirement("HOST-1")
        def test_one(): pass

        @requirement("HOST-1", "CTR-1")
        def test_and_another(): pass
        """
    )
    result = project.runpytest_subprocess()
    result.stdout.fnmatch_lines(["unsupported HOST-1: acme does not declare host"])


def test_verbose_summary_lists_kept_requirements(project: pytest.Pytester) -> None:
    """With `-v` the summary also lists the kept requirements."""
    project.makepyfile(FOUR)
    result = project.runpytest_subprocess("-v")
    result.stdout.fnmatch_lines(["kept        BR-1    MUST   *"])


def test_junit_has_requirements_as_properties(project: pytest.Pytester) -> None:
    """Each test case of the JUnit report names its requirements."""
    project.makepyfile(FOUR)
    project.runpytest_subprocess("--junitxml=report.xml", "-n", "2")
    named = {
        case.get("name"): [
            (found.get("name"), found.get("value")) for found in case.iter("property")
        ]
        for case in ElementTree.parse(Path("report.xml")).iter("testcase")
    }
    assert named["test_kept"] == [("requirement", "BR-1"), ("requirement", "BR-2")]
    assert named["test_unsupported"] == [("requirement", "HOST-1")]
    assert named["test_of_nothing"] == []


def test_unknown_runtime_is_a_usage_error(project: pytest.Pytester) -> None:
    """An unknown runtime ends the run at its start; the error lists the known runtimes."""
    result = project.runpytest_subprocess("--runtime", "dcoker", "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *'dcoker'*acme, *mydocker*"])


def test_broken_adapter_is_a_usage_error(project: pytest.Pytester) -> None:
    """An adapter that cannot be loaded ends the run at its start; the error has the reason."""
    (project.path / "site" / "acme.py").write_text("import acmelib")
    result = project.runpytest_subprocess("-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --runtime acme: 'acme', which is acme:Acme, does not load: *'acmelib'"]
    )


def test_run_of_another_project_is_unchanged(project: pytest.Pytester) -> None:
    """The plugin changes nothing in the run of a project that does not use netmodes."""
    project.makepyprojecttoml("[tool.pytest.ini_options]\naddopts = '-p harness.plugin'")
    project.makepyfile(
        """
        import os, pytest

        @pytest.mark.requirement("of another kind")
        def test_it(): assert os.getpid() != 2
        """
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("netmodes *: runtime*")


def test_leftovers_of_interrupted_test_are_no_violation(project: pytest.Pytester) -> None:
    """Leftovers of a test that Ctrl-C has interrupted are no violation."""
    project.makepyfile(
        """
        def test_it(world):
            world.host.spawn(["sleep", "60"], log="/dev/null")
            raise KeyboardInterrupt
        """
    )
    done = project.runpytest_subprocess("--runtime", "mydocker")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    assert "Violation" not in done.stdout.str() + done.stderr.str()


def test_refused_removal_breaks_life_1(project: pytest.Pytester) -> None:
    """If the runtime refuses to remove a container in the teardown, LIFE-1 is broken.

    It is not an error of the harness.
    """
    project.makepyfile(
        """
        import pytest
        from harness.adapters.protocol import RuntimeRefused
        from harness.plugin.marks import requirement

        @pytest.fixture
        def stuck():
            yield
            raise RuntimeRefused("remove network lan", "it has active endpoints")

        @requirement("BR-1")
        def test_it(stuck): pass
        """
    )
    result = project.runpytest_subprocess("--runtime", "mydocker")
    result.stdout.fnmatch_lines(["broken *LIFE-1 *", "1 broken, 1 kept, *"])
