"""A program that is asked: what it says no to, and what it must not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.adapters.program import Broken, Program, Refused


def shell(folder: Path, script: str) -> Program:
    """A program of that script, found on a PATH of its own."""
    (folder / "acme").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "acme").chmod(0o755)
    return Program(("acme", "--global"), f"{folder}:/usr/bin:/bin")


def test_what_it_is_asked_comes_behind_its_global_options(tmp_path: Path) -> None:
    """And what it writes is in the log."""
    shell(tmp_path, 'echo "$@"').ask("start", "a", log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "--global start a\n"


def test_a_no_is_told_in_its_own_words(tmp_path: Path) -> None:
    """Whatever it exits with."""
    with pytest.raises(Refused, match=r"^no such thing$"):
        shell(tmp_path, "echo no such thing >&2; exit 7").ask("start", log=tmp_path / "log")


@pytest.mark.parametrize("script", ["exit 7", "echo half; kill -9 $$"])
def test_silence_and_a_signal_are_no_answer(tmp_path: Path, script: str) -> None:
    """It is the runtime's error then, with the command and what it said."""
    with pytest.raises(Broken, match="acme --global start exited with"):
        shell(tmp_path, script).ask("start", log=tmp_path / "log")
