"""ARCHITECTURE.md has a place for everything that is there, and for nothing that is not."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
TABLE = TEXT.partition("## Inside harness")[2].partition("\n## ")[0]
NAMED = re.findall(r"`(\w+)`", TABLE)
PURE = set(re.findall(r"`(\w+)`\\\*", TABLE))


def modules() -> list[str]:
    """The names of all modules of the harness, but for its packages' and those of faults."""
    found = (ROOT / "harness").rglob("*.py")
    return [path.stem for path in found if path.stem != "__init__" and path.parent.name != "shelf"]


def test_every_module_has_its_place() -> None:
    """And what has gone has none."""
    there = set(modules())
    assert there - set(NAMED) == set(), "not in the table"
    assert set(NAMED) - there == set(), "in the table, and not there"


def test_what_is_called_pure_is_held_to_it() -> None:
    """The import rules name the same modules."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    held = {
        module.rpartition(".")[2]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if "pure" in contract["name"]
        for module in contract["source_modules"]
    }
    assert held == PURE
