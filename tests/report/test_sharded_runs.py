"""Tests of runs in shards, and of the commands about several reports."""

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
    last_report,
    run,
)

Netmodes = Callable[..., tuple[int, str, str]]


@pytest.fixture
def netmodes(project: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> Netmodes:
    """Run `netmodes` in the project; return exit status, standard output and standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.main(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def sharded(project: pytest.Pytester, part: str, *more: str) -> str:
    """Run one shard of a project with three files; return the folder of its report."""
    folder = f"part-{part[0]}"
    project.makepyfile(test_a=GREEN, test_b=RED, test_c=GREEN)
    run(project, "--shard", part, "--report", folder, *more)
    return folder


def test_merged_shards_equal_the_whole_run(project: pytest.Pytester, netmodes: Netmodes) -> None:
    """The merged shards have the verdicts and counts of the whole run.

    The exit status is the worst of the shards. The merge needs all shards.
    """
    parts = [sharded(project, f"{number}/2", "-n", "2") for number in (1, 2)]
    assert all(0 < len(last_report(project, part).tests) < 10 for part in parts)
    assert netmodes("merge", *parts, "--output", "joint")[0] == 1
    run(project, "--report=whole")
    joint, whole = last_report(project, "joint"), last_report(project, "whole")
    assert [test.id for test in joint.tests] == [test.id for test in whole.tests]
    assert joint.totals == whole.totals
    assert joint.selection.tests == whole.selection.tests
    assert netmodes("diff", "whole", "joint") == (0, "", "")
    assert netmodes("merge", parts[0], "--output", "joint")[0] != 0
    assert last_report(project, "joint").partial == ("shard 2 of 2 is missing",)


def test_shards_are_balanced_by_an_earlier_run(project: pytest.Pytester) -> None:
    """With the times of an earlier run, the longest file is alone in its shard."""
    project.makepyfile(test_a=GREEN, test_b="import time\n" + RED, test_c=GREEN)
    run(project, "--report=timed")
    text = (project.path / "timed" / "report.json").read_text()
    slow = re.sub(r'("test_b.py::test_kept".*?"seconds": )[\d.]+', r"\g<1>9", text)
    (project.path / "timed" / "report.json").write_text(slow)
    files_of = [
        {
            test.id.partition("::")[0]
            for test in last_report(project, sharded(project, f"{n}/2", "--shard-by=timed")).tests
        }
        for n in (1, 2)
    ]
    assert files_of == [{"test_b.py"}, {"test_a.py", "test_c.py"}]


def test_merge_applies_the_gate(project: pytest.Pytester, netmodes: Netmodes) -> None:
    """`netmodes merge --expect` compares the merged run with an expectation file."""
    parts = [sharded(project, f"{number}/2") for number in (1, 2)]
    listed = EXPECTED + FAILING.replace("test_it", "test_b")
    (project.path / "expect.toml").write_text(listed)
    merge = ["merge", *parts, "--output", "joint", "--expect", "expect.toml"]
    status, told, _ = netmodes(*merge)
    assert status == 0, told
    (project.path / "expect.toml").write_text(EXPECTED)
    status, told, _ = netmodes(*merge)
    assert status == 1
    assert "gate FAILED" in told
    removed = FAILING.replace("test_it", "test_removed")
    (project.path / "expect.toml").write_text(listed + removed)
    status, told, _ = netmodes(*merge)
    assert status == 1
    assert "gone               1: test test_removed.py::test_broken" in told


def test_at_most_applies_to_the_merged_run(project: pytest.Pytester, netmodes: Netmodes) -> None:
    """The `at most` limit counts the tests of all shards, even if each shard stays below it."""
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


def test_merge_refuses_shards_of_different_runs(
    project: pytest.Pytester, netmodes: Netmodes
) -> None:
    """The merge of shards of different runs exits with 2 and names the difference.

    The merge writes nothing.
    """
    parts = [sharded(project, "1/2"), sharded(project, "2/2", "-k", "kept")]
    status, _, complaint = netmodes("merge", *parts, "--output", "joint")
    assert status == 2
    assert "the shards differ in the tests that were found" in complaint
    assert not (project.path / "joint").exists()


def test_merge_refuses_different_expectations(project: pytest.Pytester, netmodes: Netmodes) -> None:
    """The merge refuses expectation files with different contents; their paths do not matter."""
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
        assert "the shards differ in the expectation file" in complaint


@WORKERS
def test_shard_without_tests_passes(
    project: pytest.Pytester, netmodes: Netmodes, workers: list[str]
) -> None:
    """A shard without tests passes and leaves a report.

    The same holds for a shard without marked tests. The merge of empty shards has no tests.
    """
    project.makepyfile(test_it="def test_of_nothing(): pass")
    statuses = [run(project, f"--shard={n}/2", f"--report=part-{n}", *workers).ret for n in (1, 2)]
    assert statuses == [0, 0]
    reports = [last_report(project, f"part-{n}") for n in (1, 2)]
    assert sorted(len(report.tests) for report in reports) == [0, 1]
    assert [report.exit for report in reports] == [0, 0]
    assert [report.shard for report in reports] == [Shard(number=n, of=2) for n in (1, 2)]
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


def test_merge_copies_the_evidence(tmp_path: Path, netmodes: Netmodes) -> None:
    """The merge copies the evidence, and the merged page links the copy.

    A page in the parent folder about several reports links the copy too.
    """
    first, second = made.shards(made.BROKEN.tests[:1], made.BROKEN.tests[1:])
    for name, part in (("a", first), ("b", second)):
        store.write(part, tmp_path / name)
    peers, joint = tmp_path / "a" / "evidence" / "peers", tmp_path / "joint"
    peers.mkdir()
    (peers / "story.txt").write_text("it died")
    parts = [str(tmp_path / name) for name in ("a", "b")]
    netmodes("merge", *parts, "--output", str(joint))
    assert (joint / "evidence" / "peers" / "story.txt").read_text() == "it died"
    page = tmp_path / "all.html"
    assert netmodes("report", str(joint), str(joint), "--output", str(page)) == (0, "", "")
    assert 'href="joint/evidence/peers/"' in page.read_text()
    assert page.read_text().count('role="tab"') == 2


def test_diff_prints_changes(project: pytest.Pytester, netmodes: Netmodes) -> None:
    """`netmodes diff` prints the changes and exits with 1.

    It exits with 2 if a file is no report.
    """
    project.makepyfile(test_it=GREEN)
    run(project, "--report=old")
    project.makepyfile(test_it=RED)
    run(project, "--report=new")
    status, told, _ = netmodes("diff", "old/report.json", "new")
    assert status == 1
    assert "BR-2: untested, now broken" in told
    assert "test_it.py::test_broken: absent, now broken" in told
    status, _, complaint = netmodes("diff", "old", "test_it.py")
    assert status == 2
    assert "test_it.py: not a report" in complaint


def test_invalid_shard_options_are_a_usage_error(project: pytest.Pytester) -> None:
    """A shard number that does not exist, or times without a shard, are a usage error."""
    project.makepyfile(test_it=GREEN)
    for options, why in (
        (["--shard=3/2"], "--shard '3/2': give K/N *"),
        (["--shard-by=x"], "--shard-by needs --shard: it balances shards"),
        (["--shard=1/2", "--shard-by=absent"], "--shard-by absent: *No such file or directory: *"),
        (["--shard=1/2", "--shard-by=test_it.py"], "--shard-by test_it.py: *not a report: *"),
    ):
        result = run(project, *options)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {why}"])


def test_report_commands_work_on_any_system(
    netmodes: Netmodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands that merge and compare reports do not need Linux."""
    monkeypatch.setattr(sys, "platform", "darwin")
    status, _, complaint = netmodes("diff", "a", "b")
    assert status == 2
    assert "No such file" in complaint
