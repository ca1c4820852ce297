"""Requirements, from the mark on a test to the verdict at the end of the run."""

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
"""What somebody's test calls a runtime and a world are words of its own."""


def test_what_is_called_as_ours_is_not_taken_for_it(project: pytest.Pytester) -> None:
    """Beside live tests too, whose guard knows the runtime by its fixture."""
    project.makepyfile(NAMESAKES)
    result = project.runpytest_subprocess(
        "--sandbox=always", "--runtime=mydocker", "-p", "no:xdist"
    )
    result.assert_outcomes(passed=2)


def test_an_unknown_id_is_a_collection_error(project: pytest.Pytester) -> None:
    """A mistyped id is found before anything runs, with the ids that it may have meant."""
    project.makepyfile(
        'from harness.plugin.marks import requirement\n@requirement("BRR-7")\ndef test_it(): pass'
    )
    result = project.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*test_it: no requirement 'BRR-7': did you mean BR-7*"])
    result.assert_outcomes(errors=1)


def test_what_a_runtime_does_not_claim_is_unsupported(project: pytest.Pytester) -> None:
    """A test is skipped when a requirement needs an undeclared feature, and says which."""
    project.makepyfile(FOUR)
    result = project.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=2, failed=1, errors=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*unsupported: acme does not declare host"])


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=" ".join)
def test_a_runtime_that_breaks_down_is_an_error(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """Also in the middle of a test, with the adapter's words and no traceback; others go on."""
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


def test_what_is_no_answer_of_the_runtimes_is_an_error(project: pytest.Pytester) -> None:
    """What its adapter lets out, an agent that is lost, a test that does not end."""
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


def test_what_is_left_of_a_breakdown_breaks_nothing(project: pytest.Pytester) -> None:
    """It is an error as the breakdown is; the next test is judged as ever."""
    project.makepyprojecttoml("[tool.pytest.ini_options]\nnetmodes = true\n")
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
    arguments = ("-p", "harness.plugin", "--runtime", "mydocker")
    result = project.runpytest_subprocess(*arguments, "-k", "not leaves")
    result.stdout.fnmatch_lines(["*LIFE-1: left behind*", "error *BR-1 *", "1 error, *"])
    result.stdout.no_fnmatch_line("broken *")
    result = project.runpytest_subprocess(*arguments)
    result.stdout.fnmatch_lines(["broken *LIFE-1 *"])
    result.assert_outcomes(passed=1, failed=1, errors=2)
    result.stdout.fnmatch_lines(["FAILED *::test_leaves*"])


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=" ".join)
def test_the_summary_counts_requirements(project: pytest.Pytester, workers: list[str]) -> None:
    """Kept, broken, unsupported and error are told apart; the worst of a row's tests counts."""
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


def test_of_a_row_the_summary_tells_the_least_that_is_lacking(project: pytest.Pytester) -> None:
    """Not what some test of it asks for besides."""
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


def test_a_verbose_summary_names_what_was_kept(project: pytest.Pytester) -> None:
    """With `-v` the kept ones are listed too."""
    project.makepyfile(FOUR)
    result = project.runpytest_subprocess("-v")
    result.stdout.fnmatch_lines(["kept        BR-1    MUST   *"])


def test_junit_names_the_requirements(project: pytest.Pytester) -> None:
    """Each test case of the XML report has its requirements as properties."""
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


def test_an_unknown_runtime_is_a_usage_error(project: pytest.Pytester) -> None:
    """The run ends at once and lists the runtimes that there are."""
    result = project.runpytest_subprocess("--runtime", "dcoker", "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *'dcoker'*acme, *mydocker*"])


def test_an_adapter_that_does_not_load_is_a_usage_error(project: pytest.Pytester) -> None:
    """The run ends at once and says what is missing."""
    (project.path / "site" / "acme.py").write_text("import acmelib")
    result = project.runpytest_subprocess("-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --runtime acme: 'acme', which is acme:Acme, does not load: *'acmelib'"]
    )


def test_other_projects_are_left_alone(project: pytest.Pytester) -> None:
    """Where the plugin is merely installed, nothing of a run is different."""
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


def test_an_interrupt_is_no_violation(project: pytest.Pytester) -> None:
    """What a test had half made when Ctrl-C came is not held against the runtime."""
    project.makepyprojecttoml("[tool.pytest.ini_options]\nnetmodes = true\n")
    project.makepyfile(
        """
        def test_it(world):
            world.host.spawn(["sleep", "60"], log="/dev/null")
            raise KeyboardInterrupt
        """
    )
    done = project.runpytest_subprocess("-p", "harness.plugin", "--runtime", "mydocker")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    assert "Violation" not in done.stdout.str() + done.stderr.str()


def test_what_a_runtime_will_not_remove_is_left_behind(project: pytest.Pytester) -> None:
    """A refusal once a test is over breaks LIFE-1; it is no error of the harness."""
    project.makepyprojecttoml("[tool.pytest.ini_options]\nnetmodes = true\n")
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
    result = project.runpytest_subprocess("-p", "harness.plugin", "--runtime", "mydocker")
    result.stdout.fnmatch_lines(["broken *LIFE-1 *", "1 broken, 1 kept, *"])
