"""Conversion of TOML tables to the types of a dataclass's fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import msgspec


class TableError(ValueError):
    """Error in a TOML table; the message names table, key and value, and the expected type."""


def convert(table: object, kinds: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Convert the values of the table `name` to the types that `kinds` gives for their keys.

    An empty text becomes `None` for a type that includes `None`, because TOML has no null. Raises
    `TableError`.
    """
    if not isinstance(table, Mapping):
        raise TableError(f"{name} is not a table, but {table!r}")
    check_keys(table, kinds, f"key of {name}")
    return {key: _converted(value, kinds[key], f"{name} {key}") for key, value in table.items()}


def check_keys(table: Mapping[str, object], known: Mapping[str, Any], kind: str) -> None:
    """Raise `TableError` for a key that is not among the known ones."""
    for key in table:
        if key not in known:
            raise TableError(f"unknown {kind}: {key!r}; the known ones are {', '.join(known)}")


def _converted(value: object, kind: Any, where: str) -> Any:
    if value == "" and type(None) in get_args(kind):
        return None
    try:
        return msgspec.convert(value, kind, dec_hook=lambda custom, text: custom(text))
    except ValueError as error:  # a ValidationError is one
        choices = ", ".join(_choices(kind))
        known = f"; possible values: {choices}" if choices else ""
        raise TableError(f"{where} is {value!r}: {error}{known}") from None


def _choices(kind: Any) -> Iterator[str]:
    """Yield the values of all enumerations in a type."""
    if get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
    elif isinstance(kind, type) and issubclass(kind, Enum):
        yield from (item.value for item in kind)
    else:
        for inner in get_args(kind):
            yield from _choices(inner)
