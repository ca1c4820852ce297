"""Tests that ARCHITECTURE.md and each folder's `__all__` agree with the source tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PACKAGES = ("harness", "runtime", "linux")
ROOMS = sorted(
    init.parent.relative_to(ROOT)
    for package in PACKAGES
    for init in (ROOT / package).rglob("__init__.py")
    if init.parent != ROOT / package or package == "linux"
)
MOST_MODULES = 14
MOST_STOPS = 8


def modules(room: Path) -> list[str]:
    """Return the names of the modules in a folder, without those in its subfolders."""
    return sorted(path.stem for path in (ROOT / room).glob("*.py") if path.stem != "__init__")


def public(room: Path) -> list[str]:
    """Return the module names in the `__all__` of a folder."""
    tree = ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def imported() -> Iterator[tuple[Path, str]]:
    """Yield each import of a module of this repository, except in tests.

    It is a pair of the importing file and the dotted name.
    """
    for package in (*PACKAGES, "suites"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    yield path, node.module
                    yield from ((path, f"{node.module}.{name.name}") for name in node.names)
                elif isinstance(node, ast.Import):
                    yield from ((path, name.name) for name in node.names)


def test_every_source_folder_is_in_the_architecture_tree() -> None:
    """The architecture tree names each folder of harness, runtime and linux."""
    drawing = TEXT.partition("```")[2].partition("```")[0]
    named = set(re.findall(r"(\w+)/", drawing))
    assert {room.name for room in ROOMS} <= named


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_source_folder_is_small_and_has_a_purpose(room: Path) -> None:
    """Each folder has few modules, and the docstring of its `__init__` says its purpose."""
    assert ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8")))
    assert len(modules(room)) <= MOST_MODULES


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_dunder_all_names_existing_modules_in_order(room: Path) -> None:
    """`__all__` names existing modules and folders, in alphabetical order."""
    found = public(room)
    inner = [item.name for item in ROOMS if item.parent == room]
    assert set(found) <= {*modules(room), *inner}
    assert found == sorted(found)


def test_other_folders_import_public_modules_only() -> None:
    """A module imports from another folder only the modules in the folder's `__all__`."""
    wrong = set()
    for path, name in imported():
        *parents, module = name.split(".")
        room = Path(*parents) if parents else Path()
        if room in ROOMS and module in modules(room):
            inside = path.relative_to(ROOT).parent == room
            if not inside and module not in public(room):
                wrong.add(f"{path.relative_to(ROOT)} imports {name}")
    assert sorted(wrong) == []


def test_architecture_paths_name_existing_modules() -> None:
    """Each path in ARCHITECTURE.md names existing modules, at most eight."""
    paths = TEXT.partition("## Four paths")[2].partition("## Glossary")[0].split("\n**")[1:]
    assert len(paths) == 4
    for path in paths:
        stops = re.findall(r"^\d\. `([\w/.]+)`", path, re.MULTILINE)
        assert 0 < len(stops) <= MOST_STOPS
        assert [stop for stop in stops if not (ROOT / stop).is_file()] == []
