"""What becomes of a run that was done in shards, and the reports of several."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main
from harness.report import store
from harness.report.schema import Shard
from tests.report import made
from tests.report.projects import (
    BY_SAYING,
    EXPECTED,
    FAILING,
    GREEN,
    RED,
    REFUSED,
    WORKERS,
    left,
    run,
)

Netmodes = Callable[..., tuple[int, str, str]]


@pytest.fixture
def netmodes(project: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> Netmodes:
    """The command, run in the project: exit status, output, errors."""

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.main(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def sharded(project: pytest.Pytester, part: str, *more: str) -> str:
    """Run one shard of three files; the folder of its report."""
    folder = f"part-{part[0]}"
    project.makepyfile(test_a=GREEN, test_b=RED, test_c=GREEN)
    run(project, "--shard", part, "--report", folder, *more)
    return folder


def test_shards_that_are_merged_are_the_whole_run(
    project: pytest.Pytester, netmodes: Netmodes
) -> None:
    """Every test once, the same verdicts and counts, the exit status of the worst."""
    parts = [sharded(project, f"{number}/2", "-n", "2") for number in (1, 2)]
    assert all(0 < len(left(project, part).tests) < 10 for part in parts)
    assert netmodes("merge", *parts, "--output", "joint")[0] == 1
    run(project, "--report=whole")
    joint, whole = left(project, "joint"), left(project, "whole")
    assert [test.id for test in joint.tests] == [test.id for test in whole.tests]
    assert joint.totals == whole.totals
    assert joint.selection.tests == whole.selection.tests
    assert netmodes("diff", "whole", "joint") == (0, "", "")


def test_shards_are_balanced_by_an_earlier_run(project: pytest.Pytester) -> None:
    """The file that took longest is alone in its shard."""
    project.makepyfile(test_a=GREEN, test_b="import time\n" + RED, test_c=GREEN)
    run(project, "--report=timed")
    text = (project.path / "timed" / "report.json").read_text()
    slow = re.sub(r'("test_b.py::test_kept".*?"seconds": )[\d.]+', r"\g<1>9", text)
    (project.path / "timed" / "report.json").write_text(slow)
    files_of = [
        {
            test.id.partition("::")[0]
            for test in left(project, sharded(project, f"{n}/2", "--shard-by=timed")).tests
        }
        for n in (1, 2)
    ]
    assert files_of == [{"test_b.py"}, {"test_a.py", "test_c.py"}]


def test_the_gate_holds_for_the_whole_of_the_shards(
    project: pytest.Pytester, netmodes: Netmodes
) -> None:
    """`netmodes merge --expect` judges what the parts could not."""
    parts = [sharded(project, f"{number}/2") for number in (1, 2)]
    listed = EXPECTED + FAILING.replace("test_it", "test_b")
    (project.path / "expect.toml").write_text(listed)
    merge = ["merge", *parts, "--output", "joint", "--expect", "expect.toml"]
    status, told, _ = netmodes(*merge)
    assert status == 0, told
    (project.path / "expect.toml").write_text(EXPECTED)
    status, told, _ = netmodes(*merge)
    assert status == 1
    assert "NOT AS EXPECTED" in told
    removed = FAILING.replace("test_it", "test_removed")
    (project.path / "expect.toml").write_text(listed + removed)
    status, told, _ = netmodes(*merge)
    assert status == 1
    assert "gone               1: test test_removed.py::test_broken" in told


def test_a_saying_excuses_no_more_tests_of_the_whole_than_of_a_part(
    project: pytest.Pytester, netmodes: Netmodes
) -> None:
    """Of each shard so many are as expected, and of the whole they are one more."""
    project.makepyfile(test_a=REFUSED, test_b=REFUSED, test_c=REFUSED)
    expected = project.path / "expect.toml"
    expected.write_text(BY_SAYING.replace("at_most = 3", "at_most = 5"))
    for part in ("1", "2"):
        shard = (f"--shard={part}/2", "--expect=expect.toml", f"--report=part-{part}")
        assert run(project, *shard).ret == 0
    merge = ["merge", "part-1", "part-2", "--output", "joint", "--expect", "expect.toml"]
    status, told, _ = netmodes(*merge)
    assert status == 1
    assert "  excused            6: test_a.py::test_shared, " in told
    assert "MORE THAN 5" in told
    expected.write_text(BY_SAYING.replace("at_most = 3", "at_most = 6"))
    assert netmodes(*merge)[0] == 0


def test_parts_of_different_runs_are_refused(project: pytest.Pytester, netmodes: Netmodes) -> None:
    """Exit status 2, what they differ in, and nothing written."""
    parts = [sharded(project, "1/2"), sharded(project, "2/2", "-k", "kept")]
    status, _, complaint = netmodes("merge", *parts, "--output", "joint")
    assert status == 2
    assert "they differ in the tests that were found" in complaint
    assert not (project.path / "joint").exists()


def test_parts_that_are_held_against_other_expectations_are_refused(
    project: pytest.Pytester, netmodes: Netmodes
) -> None:
    """By what is in the file, wherever each machine has it."""
    (project.path / "a.toml").write_text(EXPECTED)
    (project.path / "same.toml").write_text(EXPECTED)
    (project.path / "b.toml").write_text("")
    first = sharded(project, "1/2", "--expect=a.toml")
    merge = ["merge", first, "part-2", "--output", "joint"]
    sharded(project, "2/2", "--expect=same.toml")
    assert "they differ" not in netmodes(*merge)[2]
    for other in (["--expect=b.toml"], []):
        sharded(project, "2/2", *other)
        status, _, complaint = netmodes(*merge)
        assert status == 2
        assert "they differ in the expectations they are held against" in complaint


def test_a_missing_shard_makes_a_partial_report(
    project: pytest.Pytester, netmodes: Netmodes
) -> None:
    """The whole says which one, and the exit status is not 0."""
    part = sharded(project, "1/2")
    assert netmodes("merge", part, "--output", "joint")[0] != 0
    assert left(project, "joint").partial == ("shard 2 of 2 is missing",)


@WORKERS
def test_a_shard_that_gets_no_test_has_done_its_part(
    project: pytest.Pytester, netmodes: Netmodes, workers: list[str]
) -> None:
    """It passes, and leaves a report for the whole; where no shard has a test all say so."""
    project.makepyfile(test_it=GREEN)
    statuses = [run(project, f"--shard={n}/2", f"--report=part-{n}", *workers).ret for n in (1, 2)]
    assert statuses == [0, 0]
    reports = [left(project, f"part-{n}") for n in (1, 2)]
    assert sorted(len(report.tests) for report in reports) == [0, 3]
    assert [report.exit for report in reports] == [0, 0]
    assert netmodes("merge", "part-1", "part-2", "--output", "joint")[0] == 0
    none = [
        run(project, f"--shard={n}/2", f"--report=part-{n}", "-k", "absent", *workers).ret
        for n in (1, 2)
    ]
    assert none == [pytest.ExitCode.NO_TESTS_COLLECTED] * 2
    (project.path / "expect.toml").write_text("")
    merge = ["merge", "part-1", "part-2", "--output", "joint"]
    assert netmodes(*merge)[0] == pytest.ExitCode.NO_TESTS_COLLECTED
    assert netmodes(*merge, "--expect=expect.toml")[0] == pytest.ExitCode.NO_TESTS_COLLECTED


def test_every_shard_leaves_a_report(project: pytest.Pytester) -> None:
    """Also one without a test of any requirement, where none was asked for: it is to be merged."""
    project.makepyfile(test_it="def test_of_nothing(): pass")
    for number in (1, 2):
        assert run(project, f"--shard={number}/2").ret == 0
        assert left(project).shard == Shard(number=number, of=2)


def test_the_evidence_of_every_part_is_kept_with_the_whole(
    tmp_path: Path, netmodes: Netmodes
) -> None:
    """The joint page leads to it, and so does one about several that lies above."""
    first, second = made.shards(made.BROKEN.tests[:1], made.BROKEN.tests[1:])
    for name, part in (("a", first), ("b", second)):
        store.write(part, tmp_path / name)
    peers, joint = tmp_path / "a" / "evidence" / "peers", tmp_path / "joint"
    peers.mkdir()
    (peers / "story.txt").write_text("it died")
    parts = [str(tmp_path / name) for name in ("a", "b")]
    netmodes("merge", *parts, "--output", str(joint))
    assert (joint / "evidence" / "peers" / "story.txt").read_text() == "it died"
    netmodes("report", str(joint), "--output", str(tmp_path / "all.html"))
    assert 'href="joint/evidence/peers/"' in (tmp_path / "all.html").read_text()


def test_diff_names_what_changed(project: pytest.Pytester, netmodes: Netmodes) -> None:
    """Exit status 1 and a line for each; 2 for what is no report."""
    project.makepyfile(test_it=GREEN)
    run(project, "--report=old")
    project.makepyfile(test_it=RED)
    run(project, "--report=new")
    status, told, _ = netmodes("diff", "old/report.json", "new")
    assert status == 1
    assert "BR-2: untested, now broken" in told
    assert "test_it.py::test_broken: not there, now broken" in told
    status, _, complaint = netmodes("diff", "old", "test_it.py")
    assert status == 2
    assert "test_it.py: it is no report" in complaint


def test_a_page_about_several(project: pytest.Pytester, netmodes: Netmodes) -> None:
    """`netmodes report` puts runtimes side by side."""
    project.makepyfile(test_it=RED)
    run(project, "--report=one")
    assert netmodes("report", "one", "one", "--output", "both.html") == (0, "", "")
    assert (project.path / "both.html").read_text().count('role="tab"') == 2


def test_a_bad_shard_is_a_usage_error(project: pytest.Pytester) -> None:
    """A part that does not exist, and times without a shard."""
    project.makepyfile(test_it=GREEN)
    for options, why in (
        (["--shard=3/2"], "--shard '3/2': give k/n *"),
        (["--shard-by=x"], "--shard-by says how to divide a run: give --shard too"),
        (["--shard=1/2", "--shard-by=absent"], "--shard-by absent: *No such file or directory: *"),
        (["--shard=1/2", "--shard-by=test_it.py"], "--shard-by test_it.py: *it is no report: *"),
    ):
        result = run(project, *options)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {why}"])


def test_reports_are_read_where_there_is_no_linux(
    netmodes: Netmodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merging and comparing is done on any machine."""
    monkeypatch.setattr(sys, "platform", "darwin")
    status, _, complaint = netmodes("diff", "a", "b")
    assert status == 2
    assert "No such file" in complaint
