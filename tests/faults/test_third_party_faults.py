"""Tests of a third-party project with tests and faults, run by pytest and by netmodes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT, Watched, run

NETMODES = [sys.executable, "-m", "harness.cli.main"]

TESTS = """
from harness.plugin.marks import requirement
from harness.model.plan import Bridge

@requirement("BR-1")
def test_loopback_is_up(scene):
    assert scene.container("web").net.links()["lo"].up

@requirement("BR-2")
def test_a_default_route(scene):
    assert any(route.destination is None for route in scene.container("web").net.routes())

@requirement("BR-3")
def test_passes(scene):
    scene.container("web")
"""

FAULTS = '''
"""Faults of an outsider."""
from harness.faults.fault import fault
from linux.netns import NetNS

@fault("lo-down", violates=("BR-1",), moment="container-started", narrow=True)
def lo_down(site):
    """The loopback is down."""
    site.inside.set_link("lo", up=False)

@fault("cut-off", violates=("BR-1",), moment="container-started", narrow=True)
def cut_off(site):
    """The loopback is down, and more than that is broken."""
    site.inside.set_link("lo", up=False)
    for plug in site.plugs():
        site.inside.set_link(plug.inside, up=False)

@fault("harmless", violates=("BR-1",), moment="container-started")
def harmless(site):
    """Do nothing."""

@fault("late", violates=("BR-1",), moment="connected")
def late(site):
    """It acts when no test of this project makes it."""

@fault("raises", violates=("BR-1",), moment="container-started")
def raises(site):
    """It goes wrong itself."""
    site.inside.set_link("eth7", up=False)

@fault("speaks", violates=("BR-1",), around="run")
def speaks(site, verb):
    """Raise an error with a terminal sequence."""
    raise ValueError("said \\x1b]0;owned\\x07")

@fault("waits", violates=("BR-1",), moment="container-started")
def waits(site):
    """It never comes to its end."""
    from tests.support.programs import until_interrupted
    until_interrupted("waiting")

@fault("refuses", violates=("BR-1",), around="run")
def refuses(site, verb):
    """No container is started at all."""
    from harness.adapters.protocol import RuntimeBroken
    raise RuntimeBroken("it crashed")

@fault("dies", violates=("BR-1",), moment="container-started")
def dies(site):
    """Its process is killed, as one is that has taken all memory."""
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)

@fault("leaves", violates=("BR-1",), moment="container-started")
def leaves(site):
    """Its process ends without a word."""
    import os
    os._exit(3)

@fault("interrupts", violates=("BR-1",), moment="container-started")
def interrupts(site):
    """It ends the whole run."""
    raise KeyboardInterrupt
'''


@pytest.fixture
def third_party_project(project: pytest.Pytester) -> pytest.Pytester:
    """Make a project with three tests and a module of faults."""
    project.makepyfile(test_it=TESTS, my_faults=FAULTS)
    return project


def try_faults(*ids: str, tests: str = ".") -> tuple[int, str]:
    """Return the exit code and the output of `netmodes faults` with these options."""
    done = run([*NETMODES, "faults", "-p", "my_faults", "--tests", tests, "-n", "2", *ids])
    return done.returncode, done.stdout + done.stderr


def test_third_party_fault_is_caught_by_its_test(third_party_project: pytest.Pytester) -> None:
    """A third-party fault is caught, and the exit code is 0.

    The trials leave the report of an earlier run unchanged.
    """
    third_party_project.runpytest_subprocess()
    folder = third_party_project.path / "report"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert "index.html" in before
    code, told = try_faults("lo-down")
    assert code == 0, told
    assert "1 faults: 1 caught" in told
    assert re.search(r"lo-down +caught +BR-1 +test_it.py::test_loopback_is_up", told), told
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before


CUT_SHORT = "the trial did not finish:"
NOT_CAUGHT = {
    "harmless": r"survived harmless: BR-1: no test of it failed",
    "late": r"survived late: BR-1: the fault never acted",
    "refuses": r"survived refuses",
    "raises": r"broken +raises: fault raises \(.*my_faults.py:\d+\) failed at",
    "speaks": r"broken speaks: .* ValueError: said \\x1b\]0;owned\\x07",
    "dies": rf"broken dies: {CUT_SHORT} its process was killed by SIGKILL",
    "leaves": rf"broken leaves: {CUT_SHORT} its process ended with exit status 3",
    "interrupts": rf"broken interrupts: {CUT_SHORT} it raised KeyboardInterrupt",
    "cut-off": r"stray +cut-off: BR-2 by \S*test_a_default_route",
}


def test_fault_that_is_not_caught_is_reported(third_party_project: pytest.Pytester) -> None:
    """A fault that no test catches is reported, and the exit code is 1.

    Each fault has a verdict and a reason, with control characters escaped.
    """
    code, told = try_faults(*NOT_CAUGHT)
    assert code == 1, told
    unfolded = " ".join(told.split())  # long lines are folded, depending on the path
    assert [said for said in NOT_CAUGHT.values() if not re.search(said, unfolded)] == [], told
    assert "9 faults: 1 stray, 5 broken, 3 survived" in told
    assert "\x1b]" not in told


def test_terminal_shows_a_progress_bar(third_party_project: pytest.Pytester) -> None:
    """On a terminal a progress bar is shown until the end; other output has none."""
    words = ["faults", "-p", "my_faults", "--tests", ".", "lo-down", "harmless"]
    with Watched([*NETMODES, *words], terminal=True) as watched:
        watched.expect("the healthy runtime")
        first = watched.expect("1/2")
        assert "lo-down" in first
        assert "-:--:--" in first
        watched.expect("2/2")
        watched.expect("2 faults: 1 caught, 1 survived")
        assert watched.end() == 1
    assert "1/2" not in try_faults("lo-down", "harmless")[1]


def test_ctrl_c_ends_the_faults_command(third_party_project: pytest.Pytester) -> None:
    """Ctrl-C ends `netmodes faults` at once with exit code 2, without a traceback."""
    words = ["faults", "-p", "my_faults", "--tests", ".", "waits"]
    with Watched([*NETMODES, *words], terminal=True) as watched:
        watched.expect("waiting")
        watched.type("\x03")
        assert watched.end() == 2
        assert "KeyboardInterrupt" in watched.output
        assert "Traceback" not in watched.output


def test_trial_that_exceeds_the_time_limit_is_killed(third_party_project: pytest.Pytester) -> None:
    """A trial that exceeds the time limit is killed, and its fault's verdict is broken.

    The output has the time limit.
    """
    bound = "\nfrom harness.faults import trials\ntrials.BOUND = 4.0\n"
    third_party_project.makepyfile(my_faults=FAULTS + bound)
    code, told = try_faults("waits")
    assert code == 1, told
    assert "broken waits: the trial did not finish: it was killed after 4 s" in told, told


def test_fault_of_an_undeclared_feature_is_unsupported(
    third_party_project: pytest.Pytester,
) -> None:
    """A fault is not tried if the adapter does not declare a feature that it needs.

    The exit code is 0, and the output names the requirement.
    """
    third_party_project.makepyfile(test_it=TESTS.replace("BR-3", "PUB-13"))
    code, told = try_faults("sctp-is-not-published")
    assert code == 0, told
    assert "unsupported sctp-is-not-published: the runtime does not claim PUB-13" in told


def test_test_that_fails_without_a_fault_is_reported(third_party_project: pytest.Pytester) -> None:
    """A test that fails even without a fault cannot catch one.

    It is reported, and the exit code is 1.
    """
    third_party_project.makepyfile(test_it=TESTS.replace('["lo"].up', '["lo"].up == 7'))
    code, told = try_faults("harmless")
    assert code == 1, told
    assert re.search(r"harmless +survived|survived harmless", told), told
    assert "fails without a fault test_it.py::test_loopback_is_up" in told


def test_fault_option_runs_tests_on_the_sabotaged_runtime(
    third_party_project: pytest.Pytester,
) -> None:
    """With `--fault` the tests run on the sabotaged runtime, and one of them fails.

    The header names the fault.
    """
    options = ("-p", "my_faults", "--fault", "lo-down")
    result = third_party_project.runpytest_subprocess(*options, "-n", "2")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["fault lo-down: The loopback is down."])


def test_requirement_option_selects_tests(third_party_project: pytest.Pytester) -> None:
    """`--requirement` selects the tests that are marked with one of the given requirements."""
    result = third_party_project.runpytest_subprocess(
        "--requirement", "BR-1", "--requirement", "BR-3"
    )
    result.assert_outcomes(passed=2, deselected=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fault", "lo-dwon"], "*no fault 'lo-dwon': did you mean lo-down*"),
        (["--requirement", "BR1"], "*no requirement 'BR1': did you mean BR-1*"),
    ],
    ids=["fault", "requirement"],
)
def test_unknown_id_is_a_usage_error(
    third_party_project: pytest.Pytester, options: list[str], said: str
) -> None:
    """An unknown id ends the run before the first test, and similar ids are suggested."""
    result = third_party_project.runpytest_subprocess("-p", "my_faults", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {said}"])


def test_wrong_declaration_is_an_error_at_the_start(third_party_project: pytest.Pytester) -> None:
    """An invalid declaration of a fault ends the run at its start; the error names the file.

    The same holds for `netmodes faults --list`.
    """
    bad = FAULTS.replace(
        'violates=("BR-1",), moment="connected"', 'violates=("BRR-1",), moment="connected"'
    )
    third_party_project.makepyfile(my_faults=bad)
    result = third_party_project.runpytest_subprocess("-p", "my_faults", "--fault", "lo-down")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *my_faults.py:*'late': no requirement 'BRR-1'*"])
    done = run([*NETMODES, "faults", "--list", "-p", "my_faults"])
    assert done.returncode == 2
    assert "my_faults.py:" in done.stderr


def test_list_shows_built_in_and_third_party_faults(third_party_project: pytest.Pytester) -> None:
    """The list has the id, requirements and title of each fault, including third-party faults."""
    done = run([*NETMODES, "faults", "--list", "-p", "my_faults"])
    assert done.returncode == 0, done.stderr
    assert "no-masquerade" in done.stdout
    assert "lo-down" in done.stdout
    assert " internal-network-is-open-to-other-protocols " in done.stdout, "to be typed, so whole"


def test_coverage_table_of_a_project_shows_untested_requirements(
    third_party_project: pytest.Pytester,
) -> None:
    """The coverage table of a project shows its requirements without a test or a fault.

    Such holes make the exit code 1.
    """
    done = run([*NETMODES, "triangle", "--tests", ".", "-p", "my_faults"])
    assert done.returncode == 1, done.stdout + done.stderr
    row, _ = done.stdout.split(" BR-2 ")
    assert re.search(r" BR-1 +MUST +1 [^|]*lo-down", row)
    assert "missing BR-4: no test" in done.stdout


@pytest.mark.parametrize("number", ["0", "many"])
def test_invalid_number_of_workers_is_refused(number: str) -> None:
    """An invalid number of workers is refused with exit code 2."""
    done = run([*NETMODES, "faults", "-n", number])
    assert (done.returncode, done.stdout) == (2, "")
    assert f"-n {number}: invalid number of trials; give a number from 1, or auto" in done.stderr


def test_example_in_the_documentation_of_faults_works(project: pytest.Pytester) -> None:
    """The example in `docs/faults.md` works.

    The test copies the example's modules from the page.
    """
    page = Path(ROOT, "docs", "faults.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    project.makepyfile(my_faults=blocks[0] + "\n" + blocks[1].replace("from __future__", "#"))
    suites = str(Path(ROOT, "suites", "layer2", "test_flooding_mtu.py"))
    code, told = try_faults("small-mtu", tests=suites)
    assert code == 0, told
    suites = str(Path(ROOT, "suites", "isolation", "test_static_addresses.py"))
    code, told = try_faults("takes-any-address", tests=suites)
    assert code == 0, told
