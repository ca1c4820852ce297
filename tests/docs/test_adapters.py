"""Tests of the pages about adapters, whose example is run with real containers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from harness.adapters import dialects, registry
from harness.adapters.docker_cli import toml_spec
from harness.adapters.docker_cli.spec import CliVerbs
from harness.adapters.protocol import Adapter
from tests.support.programs import ROOT, environment

PAGE = ROOT / "docs" / "adapters.md"
REFERENCE = ROOT / "docs" / "adapter-protocol.md"


def block(name: str) -> str:
    """Return the code block on the page that follows a comment with this name."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE.read_text(), re.S)
    assert found, f"{PAGE} has no block called {name}"
    return found[1]


def test_adapters_page_example_prints_its_output(tmp_path: Path) -> None:
    """The example on the page has a description and a program.

    Its command prints the output that is on the page.
    """
    command, ellipsis, end = block("run").splitlines()
    assert ellipsis == "…"
    (tmp_path / "acme.toml").write_text(block("acme.toml"))
    program = tmp_path / "bin" / "acmectl"
    program.parent.mkdir()
    program.write_text(block("acmectl"))
    mydocker = program.with_name("mydocker")
    mydocker.write_text(f'#!/bin/sh\nexec {sys.executable} -m runtime "$@"\n')
    for path in (program, mydocker):
        path.chmod(0o755)
    words = command.removeprefix("$ ").split()
    assert words[0] == "pytest"
    words = [str(ROOT / word) if word.startswith("suites/") else word for word in words[1:]]
    config = ("-p", "no:cacheprovider", f"--rootdir={ROOT}", f"-c{ROOT / 'pyproject.toml'}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *config, *words],
        cwd=tmp_path,
        env=environment(PATH=f"{program.parent}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert end in done.stdout


def test_protocol_page_tables_name_every_key_and_verb() -> None:
    """The tables name all keys of a description and all methods of the protocol."""
    page = REFERENCE.read_text()
    verbs = [name for name in vars(Adapter) if not name.startswith("_")]
    missing = [
        word
        for word in (*toml_spec.KEYS, *(item.name for item in fields(CliVerbs)), *verbs)
        if f"`{word}`" not in page and f"`{word}(" not in page
    ]
    assert missing == []


def test_protocol_page_dialect_entry_is_in_dialects_toml() -> None:
    """`dialects.toml` contains the example entry on the page, word for word."""
    shown = re.search(r"```toml\n(\[\[docker\]\]\n.*?)```", REFERENCE.read_text(), re.S)
    assert shown
    table = Path(str(dialects.__file__)).with_name("dialects.toml").read_text()
    assert shown[1] in table


def test_adapters_page_names_the_entry_point_group() -> None:
    """The page names the entry point group that the registry reads."""
    assert f'"{registry.GROUP}"' in PAGE.read_text()
