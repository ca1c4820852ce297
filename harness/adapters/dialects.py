"""Documented choices of the runtimes by version, read from `dialects.toml`.

A dialect is composed of the entries of a runtime that apply to its version, in table order. A later
entry replaces the values of an earlier one; only the patterns of `residue` and `fleeting` are added
to the earlier ones. Each entry names its source, so that a difference can be looked up.
"""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Final, get_type_hints

from harness.adapters.support import toml_table
from harness.model.dialect import Dialect

_ABOUT: Final = frozenset({"source", "about", "since", "before"})
"""Keys of an entry that are not fields of a dialect."""


@dataclass(frozen=True, slots=True)
class DocumentedChoice:
    """Fields of a dialect that one source documents: an entry of `dialects.toml`."""

    source: str
    about: str
    choices: Mapping[str, Any]


def composed(*named: tuple[str, str]) -> Dialect:
    """Return the dialect that the entries of `named` compose; later entries take precedence.

    Each item of `named` is a runtime with its version. The network backend of a bare runtime is
    named before the runtime. Without any entry the dialect has its default values.
    """
    known = entries(*named)
    if not known:
        return Dialect()
    found = Dialect()
    for entry in known:
        found = replace(found, **entry.choices)
    residue, fleeting = (
        tuple(pattern for entry in known for pattern in entry.choices.get(field, ()))
        for field in ("residue", "fleeting")
    )
    return replace(found, residue=residue, fleeting=fleeting)


def entries(*named: tuple[str, str]) -> list[DocumentedChoice]:
    """Return the entries of the table that apply to these runtimes and versions, in order."""
    return [
        DocumentedChoice(
            row["source"],
            row.get("about", ""),
            read({key: row[key] for key in row if key not in _ABOUT}),
        )
        for runtime, version in named
        for row in _table().get(runtime, ())
        if _applies(row, version)
    ]


def read(choices: object) -> dict[str, Any]:
    """Convert a TOML table to fields of a dialect; an empty text means "not documented".

    Raises `toml_table.TableError`.
    """
    return toml_table.convert(choices, _types(), "[dialect]")


@cache
def _types() -> dict[str, Any]:
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
