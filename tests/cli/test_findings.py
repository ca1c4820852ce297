"""Tests of the command `netmodes findings`."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest

from harness.cli import main


def test_findings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`netmodes findings` prints a table of all findings.

    Upstream reports have short names.
    """
    assert main.main(["findings"]) == 0
    out = capsys.readouterr().out
    assert "Datagrams from other networks enter an internal network" in out
    assert "moby#48365" in out
    assert "not reported" in out


def test_findings_of_one_runtime_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`--runtime` selects the findings about one runtime."""
    assert main.main(["findings", "--runtime", "nspawn"]) == 0
    (heading, *rows) = capsys.readouterr().out.splitlines()
    assert heading.split() == ["requirements", "finding", "kind", "upstream"]
    assert [row.split()[0] for row in rows] == ["V6-2,"]


def test_runtime_without_findings_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """For a runtime without findings, the error names the runtimes that have some.

    The exit code is 2.
    """
    assert main.main(["findings", "--runtime", "acme"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("netmodes findings: there are no findings of acme; there are of bwrap, ")


def test_findings_pages_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--write` writes an overview and a page for each finding to the folder."""
    assert main.main(["findings", "--write", str(tmp_path / "docs")]) == 0
    assert (tmp_path / "docs/findings.md").is_file()
    page = tmp_path / "docs/findings/podman-internal-network-lets-datagrams-in.md"
    assert "# Datagrams from other networks enter an internal network" in page.read_text()
    assert capsys.readouterr().out == ""


def test_unwritable_folder_of_findings_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the folder cannot be written, the error names the folder, and the exit code is 2."""
    (tmp_path / "docs").write_text("a file")
    assert main.main(["findings", "--write", str(tmp_path / "docs")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"netmodes findings: cannot write to {tmp_path}/docs: ")


def test_malformed_findings_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a file of findings is malformed, the error names the file, and the exit code is 2."""
    catalogue = (importlib.resources.files("suites") / "requirements.toml").read_text()
    (tmp_path / "requirements.toml").write_text(catalogue)
    (tmp_path / "findings").mkdir()
    (tmp_path / "findings/acme.toml").write_text("[runtime")
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path)
    assert main.main(["findings"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("netmodes findings: acme.toml: it is not TOML: ")
