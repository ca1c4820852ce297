"""Tests of a failed test's evidence: an explanation in its message, and a folder in the report."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader

from harness.diagnosis.evidence import folder_name
from harness.model import plan_file
from harness.report import schema
from harness.report.sanitize import folder
from linux import syscalls
from tests.diagnosis.conftest import Project, evidence_of
from tests.report.projects import last_report

BROKEN = """
import sys
from harness.plugin.marks import requirement
from linux import nftables

TABLE = nftables.Table("inet", "built")

@requirement("BR-4")
def test_kept(scene):
    scene.container("web")
    row = scene.promised().select(source="web", target="gateway")
    assert scene.observed(row) == row
    assert "harness.diagnosis.replay" not in sys.modules

@requirement("BR-4")
def test_broken(scene):
    scene.containers(web={bridge}, db={bridge})
    with scene.netns("db").open() as space, nftables.Nft(space) as rules:
        chain = nftables.add_chain(TABLE, "input", hook="input")
        drop = nftables.add_rule(TABLE, "input", nftables.verdict("drop"), comment="\\x1b[31mred")
        rules.apply([nftables.add_table(TABLE), chain, drop])
    {body}

"""
IMPORTS = "from harness.model.plan import Bridge\n"
MATRIX = "assert scene.observed() == scene.promised()"
ORDINARY = 'assert scene["web"].name == "another"'
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(project: Project) -> Run:
    """Return a function that runs pytest on two live tests: one fails and the other passes."""

    def run(*options: str, body: str = MATRIX) -> pytest.RunResult:
        text = BROKEN.replace("{bridge}", "Bridge()").replace("{body}", body)
        return project(IMPORTS + text, *options)

    return run


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=" ".join)
def test_failed_matrix_leaves_explanation_and_folder(
    run: Run, pytester: pytest.Pytester, workers: list[str]
) -> None:
    """The message of a failed matrix names the rule that dropped the packet.

    The report names the evidence folder, with and without workers.
    """
    result = run(*workers)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*web → db icmp, udp, tcp over IPv4", "*dropped in db, table*"])
    assert "\x1b[31m" not in result.stdout.str()
    where = evidence_of(pytester, "test_broken")
    assert {item.name for item in where.iterdir()} == {
        "story.txt",
        "capture.pcapng",
        "commands.txt",
        "state",
        "plan.toml",
        "again.txt",
    }
    (failure,) = next(item for item in last_report(pytester).tests if item.failures).failures
    files = [item for item in where.rglob("*") if item.is_file()]
    assert sorted(failure.files) == sorted(item.relative_to(where).as_posix() for item in files)
    assert failure.files[0] == "story.txt"
    story = (where / "story.txt").read_text()
    assert "web → db" in story
    assert "table inet built, chain input, rule 1" in story
    assert "\x1b" not in story
    assert (
        where / "again.txt"
    ).read_text() == "pytest test_it.py::test_broken --runtime mydocker\n"
    plan = plan_file.read(where / "plan.toml")
    assert [item.name for item in plan.containers] == ["web", "db"]
    assert {item.name for item in where.parent.iterdir()} == {where.name, "index.md"}
    assert where.name in (where.parent / "index.md").read_text()


def test_evidence_has_commented_capture_and_state(run: Run, pytester: pytest.Pytester) -> None:
    """The evidence has a packet capture with comments, and the state of the path.

    The capture names the interfaces, and the decisive frame has the conclusion as comment. The
    state of each netns on the path is in the format of `ip -j`, with its nftables rules.
    """
    run()
    where = evidence_of(pytester, "test_broken")
    reader: Any = RawPcapNgReader(str(where / "capture.pcapng"))
    with reader:
        comments = [b" ".join(meta.comments or ()) for _, meta in reader]
    names = {dict(item[2] if len(item) > 2 else {}).get("name", b"") for item in reader.interfaces}
    assert b"web/eth0" in names
    assert any(b"dropped in db" in comment for comment in comments)
    states = {file.stem: json.loads(file.read_text()) for file in (where / "state").iterdir()}
    assert {"web", "db", "host"} <= states.keys()
    assert "eth0" in [link["ifname"] for link in states["web"]["link"]]
    assert "default" in [route["dst"] for route in states["web"]["route"]]
    assert [rule["table"] for rule in states["db"]["nft"]] == ["built"]
    assert all("error" not in state for state in states.values())


def test_failure_without_matrix_leaves_evidence_of_its_scene(
    run: Run, pytester: pytest.Pytester
) -> None:
    """A failure without a matrix leaves state, plan and rerun command as evidence.

    No cell is probed again.
    """
    run(body=ORDINARY).assert_outcomes(passed=1, failed=1)
    where = evidence_of(pytester, "test_broken")
    assert {item.name for item in where.iterdir()} == {
        "commands.txt",
        "state",
        "plan.toml",
        "again.txt",
    }


def test_evidence_lists_the_requests_to_the_runtime(run: Run, pytester: pytest.Pytester) -> None:
    """The evidence lists the requests to the runtime.

    Each has its arguments, time, duration and, if it was refused, the refusal.
    """
    refused = "import pytest; pytest.raises(Exception, scene.runtime.remove_network, 'nobody'); "
    run(body=refused + ORDINARY)
    text = (evidence_of(pytester, "test_broken") / "commands.txt").read_text()
    blocks = [block.splitlines() for block in text.split("\n\n")]
    started = [block for block in blocks if block[0].startswith("$ run web ")]
    assert "('sleep', '2147483647')" in started[0][0]
    assert re.fullmatch(r"# \d\d:\d\d:\d\d\.\d{3} UTC, exit 0 after \d+\.\d{3} s", started[0][1])
    assert re.search(r"\bid='[0-9a-f]{64}'", started[0][2])
    (no,) = [block for block in blocks if block[0] == "$ remove network nobody 'nobody'"]
    assert "exit 1 after" in no[1]
    assert "nobody" in no[2]


KNOWN = ["--probe=exec", "--profile=gate", "--hypothesis-seed=3", "--expect=known.toml"]


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (
            KNOWN,
            "test_it.py::test_broken --runtime mydocker " + " ".join(KNOWN).replace("=", " "),
        ),
        (["--pyargs", "test_it"], "--pyargs test_it::test_broken --runtime mydocker"),
    ],
    ids=["options", "installed suites"],
)
def test_rerun_command_repeats_the_run(
    run: Run, pytester: pytest.Pytester, options: list[str], command: str
) -> None:
    """The rerun command has all options that differ from the defaults.

    It works in any folder. The report's page has the command too.
    """
    (pytester.path / "known.toml").touch()
    run(*options, "-k", "broken", body=ORDINARY)
    assert (evidence_of(pytester, "test_broken") / "again.txt").read_text() == f"pytest {command}\n"
    page = (pytester.path / "report" / "index.html").read_text()
    assert f"Run the test again: <code>pytest {command}</code>" in page
    probe = schema.load(pytester.path / "report").environment.get("probe")
    assert probe == ("exec" if options == KNOWN else None)


def test_explanation_needs_evidence_but_no_report(run: Run, pytester: pytest.Pytester) -> None:
    """With `--no-report` there is an explanation, but no evidence folder.

    With `--no-evidence` there is no explanation either.
    """
    assert "dropped in db" in run("--no-report").stdout.str()
    assert not (pytester.path / "report").exists()
    result = run("--no-evidence")
    result.assert_outcomes(passed=1, failed=1)
    assert "dropped in db" not in result.stdout.str()
    assert not (pytester.path / "report" / "evidence").exists()


def test_evidence_of_an_earlier_run_is_removed(run: Run, pytester: pytest.Pytester) -> None:
    """The evidence of an earlier run is removed; other files in its folder stay."""
    run(body=ORDINARY)
    old = evidence_of(pytester, "test_broken").parent / "old"
    kept = old.with_name("kept")
    for place in (old, kept):
        (place / "state").mkdir(parents=True)
        for file in (place / "again.txt", place / "state" / "host.json"):
            file.write_text("old")
            os.utime(file, (1, 1))
    (kept / "notes.txt").write_text("mine")
    run(body=ORDINARY)
    assert evidence_of(pytester, "test_broken").is_dir()
    assert not old.exists()
    assert [item.name for item in kept.iterdir()] == ["notes.txt"]


def test_timeout_while_writing_evidence_does_not_end_the_run(run: Run) -> None:
    """A timeout while evidence is written does not end the run.

    pytest-timeout may raise it even after the end of the test.
    """
    late = "import pytest; from harness.diagnosis import evidence; "
    late += "evidence.write = lambda *_, **__: pytest.fail('Timeout (>60.0s)'); assert 1 == 2"
    result = run(body=late)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*could not be written: Failed: Timeout*"])


@pytest.mark.parametrize("body", [MATRIX, ORDINARY])
def test_unwritable_evidence_is_not_linked(run: Run, pytester: pytest.Pytester, body: str) -> None:
    """Evidence that cannot be written is not linked in the report; the failure has the reason."""
    (pytester.path / "report").mkdir()
    (pytester.path / "report" / "evidence").touch()
    result = run("-k", "broken", body=body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["could not be written: NotADirectoryError: *"])
    report = schema.load(pytester.path / "report")
    assert [failure.evidence for test in report.tests for failure in test.failures] == [None]


FILL = """
def test_that_takes_all_room():
    with open("small/filler", "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass
"""


@pytest.fixture
def small_disk(pytester: pytest.Pytester) -> Iterator[Path]:
    """Mount a file system with room for the evidence of a few failures."""
    place = pytester.mkdir("small")
    syscalls.mount("tmpfs", str(place), "tmpfs", 0, "size=2m")
    yield place
    syscalls.umount(str(place))


@pytest.mark.parametrize("body", [MATRIX, ORDINARY])
def test_report_in_another_folder_has_its_evidence(
    run: Run,
    pytester: pytest.Pytester,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    body: str,
) -> None:
    """If the report has to be written to another folder, its evidence is copied there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    pytester.makepyfile(test_z=FILL)
    result = run("--report=small", body=body)
    result.assert_outcomes(passed=2, failed=1)
    (fresh,) = tmp_path.glob("netmodes-report-*")
    where = evidence_of(pytester, "test_broken", str(fresh))
    assert where.is_relative_to(fresh)
    (failure,) = next(item for item in schema.load(fresh).tests if item.failures).failures
    files = {item.relative_to(where).as_posix() for item in where.rglob("*") if item.is_file()}
    assert set(failure.files) == files
    assert "again.txt" in files
    (first,) = (small_disk / "evidence").glob("*test_broken*")
    assert all((where / name).read_bytes() == (first / name).read_bytes() for name in files)


def test_failed_diagnosis_does_not_hide_the_failure(run: Run) -> None:
    """If a diagnosis fails, its error is a line of the explanation.

    The wrong cells are shown too.
    """
    late = "found, row = scene.observed(), scene.promised()\n    scene.close()\n    "
    result = run(body=late + "assert found == row")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*web → db icmp, udp, tcp over IPv4", "*the diagnosis failed: *"])


@given(test=st.text(min_size=1))
def test_any_test_id_makes_a_safe_folder_name(test: str) -> None:
    """Any test id is converted to the name of a folder that the report accepts as its own."""
    name = folder_name(test)
    assert folder(f"evidence/{name}") == f"evidence/{name}"
    assert "/" not in name
    assert len(name) < 128


def test_similar_test_ids_have_different_folders() -> None:
    """Test ids that differ in truncated or replaced characters have different folders."""
    long = "test_it.py::test_" + "x" * 200
    names = {folder_name(name) for name in (long, long + "y", "a::b", "a/b", "a-b", "a b")}
    assert len(names) == 6
