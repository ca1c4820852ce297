"""`report.json`: written, and read with every field checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from harness.report.schema import VERSION, Report

NAME = "report.json"
_EMPTY: Any = (None, "", [], {})
_LISTS = frozenset({"requirements", "tests", "matrices", "cells"})


class BadReport(ValueError):
    """A file is no report, or one of a version that is not understood; the message says which."""


def dumps(report: Report) -> str:
    """The report as JSON: what is empty is left out, each test, row and cell on a line."""
    return _pretty(_lean(msgspec.to_builtins(report, order="deterministic"))) + "\n"


def plain(report: Report) -> dict[str, Any]:
    """The report as what `json.loads` makes of the file."""
    return json.loads(dumps(report))  # type: ignore[no-any-return]


def loads(text: str | bytes) -> Report:
    """The report in `text`. Raises `BadReport`."""
    try:
        head = msgspec.json.decode(text, type=dict[str, Any])
        found = head.get("version")
        if found != VERSION:
            raise BadReport(f"it is of version {found!r}; this program reads version {VERSION}")
        return msgspec.convert(head, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadReport(f"it is no report: {error}") from error


def load(path: Path) -> Report:
    """The report in a file, or in the folder that a run has written.

    Raises `BadReport`, and `OSError` where there is none.
    """
    file = path / NAME if path.is_dir() else path
    try:
        return loads(file.read_bytes())
    except BadReport as error:
        raise BadReport(f"{file}: {error}") from error


def _lean(value: Any) -> Any:
    if isinstance(value, dict):
        pairs = ((key, _lean(item)) for key, item in value.items())
        return {key: item for key, item in pairs if item not in _EMPTY}
    if isinstance(value, list | tuple):
        return [_lean(item) for item in value]
    return value


def _pretty(value: Any, indent: str = "") -> str:
    """Indented as far as lists of records, each of which is one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    inner = indent + "  "
    entries = []
    for key, item in value.items():
        if key in _LISTS and isinstance(item, list) and item and isinstance(item[0], dict):
            deeper = inner + "  "
            lines = (
                _pretty(record, deeper) if key == "matrices" else json.dumps(record)
                for record in item
            )
            shown = "[\n" + ",\n".join(deeper + text for text in lines) + f"\n{inner}]"
        elif isinstance(item, dict) and (not indent):
            shown = _pretty(item, inner)
        else:
            shown = json.dumps(item)
        entries.append(f"{inner}{json.dumps(key)}: {shown}")
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
