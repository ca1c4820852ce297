"""Documented choices of the runtimes by version, read from `dialects.toml`.

A dialect is composed of the entries of a runtime that apply to a version, in their order in the
table. A later entry replaces what an earlier one says, but the patterns of `residue` and
`fleeting` add up. Each entry has its source, so that a difference can be looked up.
"""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Final, get_type_hints

from harness.adapters.support import toml_table
from harness.model.dialect import Dialect

_ABOUT: Final = frozenset({"source", "about", "since", "before"})
"""Keys of an entry that are not fields of a dialect."""


@dataclass(frozen=True, slots=True)
class DocumentedChoice:
    """Fields of a dialect that one source documents."""

    source: str
    about: str
    choices: Mapping[str, Any]


def for_runtime(runtime: str, version: str, *, upon: Sequence[tuple[str, str]] = ()) -> Dialect:
    """Return the dialect of a version of a runtime; the defaults if the table has no entry.

    `upon` names other entries of the table, each with a version, whose choices come first, such
    as those of the network backend of a bare runtime.
    """
    named = (*upon, (runtime, version))
    return _composed([entry for one in named for entry in entries(*one)])


def for_entries(kin: Sequence[str], version: str) -> Dialect:
    """Return the dialect composed of several runtimes' entries, in this order."""
    return _composed([entry for name in kin for entry in entries(name, version)])


def _composed(known: Sequence[DocumentedChoice]) -> Dialect:
    if not known:
        return Dialect()
    found, residue, fleeting = Dialect(residue=()), list[str](), list[str]()
    for entry in known:
        residue += entry.choices.get("residue", ())
        fleeting += entry.choices.get("fleeting", ())
        found = replace(found, **entry.choices)
    return replace(found, residue=tuple(residue), fleeting=tuple(fleeting))


def entries(runtime: str, version: str) -> list[DocumentedChoice]:
    """Return the entries of the table that apply to a version of a runtime, in order."""
    return [
        DocumentedChoice(
            row["source"],
            row.get("about", ""),
            read({key: row[key] for key in row if key not in _ABOUT}),
        )
        for row in _table().get(runtime, ())
        if _applies(row, version)
    ]


def read(choices: object) -> dict[str, Any]:
    """Convert a TOML table to fields of a dialect; an empty text means "not documented".

    Raises `toml_table.TableError`.
    """
    return toml_table.convert(choices, _kinds(), "[dialect]")


@cache
def _kinds() -> Mapping[str, Any]:
    return get_type_hints(Dialect)


@cache
def _table() -> dict[str, list[dict[str, Any]]]:
    text = (importlib.resources.files(__package__) / "dialects.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _applies(row: Mapping[str, Any], version: str) -> bool:
    own = _numbers(version)
    if "since" in row and own < _numbers(row["since"]):
        return False
    return "before" not in row or own < _numbers(row["before"])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def differences(dialect: Dialect) -> Iterator[tuple[str, object]]:
    """Yield the fields that differ from the default dialect, except `residue`."""
    plain = Dialect()
    for item in fields(Dialect):
        value = getattr(dialect, item.name)
        if item.name != "residue" and value != getattr(plain, item.name):
            yield item.name, value
