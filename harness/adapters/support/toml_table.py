"""Tables of TOML files, converted to the types of a dataclass's fields."""

from __future__ import annotations

import types
from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv4Interface, IPv6Interface
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec

_NAMES: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    str: "a text",
    IPv4Interface: "an IPv4 address with its prefix length",
    IPv6Interface: "an IPv6 address with its prefix length",
}


class TableError(ValueError):
    """A table is malformed; the message names table and key, what was given and what is wanted."""


def convert(table: object, kinds: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Convert the values of the table `name` to the types that `kinds` has for their keys.

    An empty text becomes `None` for a type that includes `None`, because TOML has no null. The
    description of a `msgspec.Meta` is what error messages call its type. Raises `TableError`.
    """
    if not isinstance(table, Mapping):
        raise TableError(f"{name} is to be a table, not {table!r}")
    check_keys(table, kinds, f"key of {name}")
    return {key: _converted(value, kinds[key], f"{name} {key}") for key, value in table.items()}


def check_keys(table: Mapping[str, object], known: Mapping[str, Any], kind: str) -> None:
    """Raise `TableError` for a key that is not among the known ones."""
    for key in table:
        if key not in known:
            raise TableError(f"there is no {kind} called {key!r}; there are: {', '.join(known)}")


def _converted(value: object, kind: Any, where: str) -> Any:
    if value == "" and type(None) in get_args(kind):
        return None
    try:
        return msgspec.convert(value, kind, dec_hook=lambda custom, text: custom(text))
    except ValueError as error:  # a ValidationError is one
        wrong = f" ({error})" if isinstance(value, list) else ""
        raise TableError(f"{where}: {_wanted(kind)} is wanted, not {value!r}{wrong}") from None


def _wanted(kind: Any) -> str:
    """Return the words for a type in error messages."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        described: str = next(item.description for item in kind.__metadata__ if item.description)
        return described
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if origin in (Union, types.UnionType):
        return " or ".join(_wanted(item) for item in inner if item is not type(None))
    if origin in (tuple, frozenset):
        return f"a list (each {_wanted(inner[0])})"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(item.value for item in kind)}"
    return _NAMES[kind]
