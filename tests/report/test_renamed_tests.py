"""Tests of renamed tests: their table, `netmodes rename-tests`, and runs with former names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.report import expectations, renamed_tests
from harness.report.expectations import Deviation, DeviationKind
from harness.report.renamed_tests import Renamed
from tests.support.suites import function_of, functions

FORMER = "suites/modes/test_bridge.py::test_it_has_lo_and_eth0_only"
PRESENT = "suites/modes/test_bridge.py::test_bridged_container_has_only_lo_and_eth0"
RENAMED = Renamed.of_suites()


def known(node_id: str, kind: DeviationKind = DeviationKind.TEST) -> Deviation:
    """Return an entry of an expectation file about a test."""
    return Deviation(runtime="acme", kind=kind, id=node_id, reason="known")


def test_new_names_in_the_table_of_renamed_tests_exist() -> None:
    """Each new node id in the table of renamed tests is that of a test in the suites."""
    present = {*RENAMED.functions.values(), *RENAMED.tests.values()}
    assert set(map(function_of, present)) <= functions().keys()


@pytest.mark.parametrize(
    ("former", "present"),
    [
        (
            "suites/ports/test_loopback.py::"
            "test_forged_frames_for_the_loopback_get_in_as_declared[IPv4-stranger]",
            "suites/ports/test_loopback.py::"
            "test_spoofed_frames_to_loopback_port_enter_only_as_declared[IPv4-other-network]",
        ),
        (
            "suites/matrix/test_cast.py::test_the_host_reaches_its_containers",
            "suites/matrix/test_reference_plan.py::test_host_reaches_its_containers_directly",
        ),
        (
            "suites/dns/test_resolver.py::"
            "test_second_resolver_answers_when_one_fails[giving up-user-defined]",
            "suites/dns/test_resolver.py::"
            "test_container_queries_second_resolver_when_first_fails[SERVFAIL-user-defined]",
        ),
        ("tests/own.py::test_own[4-b]", "tests/own.py::test_own[4-b]"),
    ],
    ids=["parameters", "file", "one parameter", "foreign test"],
)
def test_former_node_id_is_replaced_by_the_present_one(former: str, present: str) -> None:
    """A former node id is replaced by the present one, with its parameters and its file.

    The id of another project's test stays unchanged.
    """
    assert RENAMED.present(former) == present


def test_entries_of_merged_tests_become_one_entry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If two tests were merged into one, their entries become one entry.

    The file is sorted. A second conversion changes nothing.
    """
    path = tmp_path / "acme.toml"
    requirement = known("BR-1", DeviationKind.REQUIREMENT)
    listed = [known(f"{FORMER}[container01]"), known(f"{FORMER}[container02]"), requirement]
    path.write_text(expectations.dumps(listed))
    assert main.main(["rename-tests", str(path)]) == 0
    assert "2 of 3 entries changed" in capsys.readouterr().out
    merged = known(f"{PRESENT}[default]")
    assert set(expectations.loads(path.read_text())) == {requirement, merged}
    text = path.read_text()
    assert main.main(["rename-tests", str(path)]) == 0
    assert path.read_text() == text


def test_rename_tests_leaves_an_invalid_file_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error for an invalid expectation file names the file, which stays unchanged."""
    path = tmp_path / "acme.toml"
    path.write_text("[[deviation]]\n")
    assert main.main(["rename-tests", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert path.read_text() == "[[deviation]]\n"


def test_former_names_in_a_file_are_read_as_present_names(tmp_path: Path) -> None:
    """A file with former test names is read with present ones, and the hint names the command."""
    path = tmp_path / "acme.toml"
    path.write_text(expectations.dumps([known(f"{FORMER}[container01]")]))
    ((deviation,), _, hint) = renamed_tests.read(path)
    assert deviation.id == f"{PRESENT}[default]"
    assert hint.startswith("expectations: 1 of 1 entries have former test names")
    assert hint.endswith(f"`netmodes rename-tests {path}`")


def test_file_with_present_names_gets_no_hint(tmp_path: Path) -> None:
    """An expectation file with present test names is read unchanged, without a hint."""
    path = tmp_path / "acme.toml"
    listed = [known(f"{PRESENT}[default]"), known("BR-1", DeviationKind.REQUIREMENT)]
    path.write_text(expectations.dumps(listed))
    found, _, hint = renamed_tests.read(path)
    assert set(found) == set(listed)
    assert hint == ""


def test_run_accepts_an_expectation_file_with_former_names(pytester: pytest.Pytester) -> None:
    """A run reads former test names in its expectation file and prints how to update the file."""
    former = "suites/modes/test_none.py::test_container_has_a_netns_of_its_own"
    item = replace(known(former), runtime="mydocker")
    pytester.makefile(".toml", expect=expectations.dumps([item]))
    node = "suites.modes.test_none::test_container_without_network_has_its_own_netns"
    done = pytester.runpytest_subprocess("--pyargs", node, "--expect=expect.toml", "--no-report")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*fixed*1: test suites/modes/test_none.py::test_container_without*"])
    done.stdout.fnmatch_lines(["expectations: 1 of 1 entries have former test names; update*"])
