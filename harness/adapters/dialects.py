"""The documented choices of runtimes that others make, by version: `dialects.toml`, read.

A dialect is put together from the entries of a runtime that go with a version, in the
order in which they stand: a later one replaces what an earlier one said, but for
`residue` and `fleeting`, which add up. Each has its source, so that a difference can be
looked up, and argued with.
"""

from __future__ import annotations

import importlib.resources
import re
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from harness.model.dialect import Dialect

_ABOUT: Final = frozenset({"source", "about", "since", "before"})
"""Keys of an entry that are not fields of a dialect."""


class DialectError(ValueError):
    """A dialect is malformed; the message names the field, what it was given and what it takes."""


@dataclass(frozen=True, slots=True)
class DocumentedChoice:
    """One documented choice, or several with one source."""

    source: str
    about: str
    choices: Mapping[str, Any]


def of(runtime: str, version: str, *, upon: Sequence[tuple[str, str]] = ()) -> Dialect:
    """The dialect of a runtime in a version; of one that is not in the table, the defaults.

    `upon` names other entries of the table, each with a version, whose choices come first: such
    as what a runtime without networks of its own is wired by.
    """
    named = (*upon, (runtime, version))
    return _together([entry for one in named for entry in entries(*one)])


def of_kin(kin: Sequence[str], version: str) -> Dialect:
    """The dialect of a runtime that several entries are about, the first ones first."""
    return _together([entry for name in kin for entry in entries(name, version)])


def _together(known: Sequence[DocumentedChoice]) -> Dialect:
    if not known:
        return Dialect()
    found, residue, fleeting = Dialect(residue=()), list[str](), list[str]()
    for entry in known:
        residue += entry.choices.get("residue", ())
        fleeting += entry.choices.get("fleeting", ())
        found = replace(found, **entry.choices)
    return replace(found, residue=tuple(residue), fleeting=tuple(fleeting))


def entries(runtime: str, version: str) -> list[DocumentedChoice]:
    """What the table has about a runtime in a version, in order."""
    return [
        DocumentedChoice(
            row["source"],
            row.get("about", ""),
            read({key: row[key] for key in row if key not in _ABOUT}),
        )
        for row in _table().get(runtime, ())
        if _applies(row, version)
    ]


def read(choices: Mapping[str, object]) -> dict[str, Any]:
    """Fields of a dialect from what TOML has: texts, numbers, lists.

    An empty text stands for "not documented" where a field can be `None`.
    """
    kinds = get_type_hints(Dialect)
    known = [item.name for item in fields(Dialect)]
    read_ = {}
    for name, value in choices.items():
        if name not in kinds:
            raise DialectError(f"a dialect has no field {name!r}; there are: {', '.join(known)}")
        try:
            read_[name] = _converted(kinds[name], value)
        except (TypeError, ValueError) as error:
            raise DialectError(f"dialect field {name}: {error}") from None
    return read_


def _converted(kind: Any, value: object) -> Any:
    """A value of a field's type; `ValueError` tells what that would be."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{value!r} is none of {', '.join(map(repr, inner))}")
        return value
    if origin in (Union, types.UnionType):
        if value == "" and type(None) in inner:
            return None
        return _one_of([item for item in inner if item is not type(None)], value)
    if origin in (tuple, frozenset):
        if not isinstance(value, list):
            raise ValueError(f"a list is wanted, not {value!r}")
        return origin(_converted(inner[0], item) for item in value)
    if kind in (bool, int, str):
        if type(value) is not kind:
            raise ValueError(f"{kind.__name__} is wanted, not {value!r}")
        return value
    return kind(value)


def _one_of(kinds: list[Any], value: object) -> Any:
    wrong = []
    for kind in kinds:
        try:
            return _converted(kind, value)
        except (TypeError, ValueError) as error:
            wrong.append(str(error))
    raise ValueError("; ".join(wrong))


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
    """The fields in which a dialect is not the default one, `residue` left out."""
    plain = Dialect()
    for item in fields(Dialect):
        value = getattr(dialect, item.name)
        if item.name != "residue" and value != getattr(plain, item.name):
            yield item.name, value
