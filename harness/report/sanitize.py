"""Sanitising of foreign text: names, output and logs that come from the runtime under test.

Reports appear in terminals, browsers and issue trackers. Visible characters stay. Every other
character is escaped if one of these programs might act upon it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from harness.model.matrix import printable

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS: Final = re.compile(r"https?://[^\s\"'<>\\^`{|}]+", re.ASCII)
_PATH: Final = re.compile(r"[\w .,@+=()\[\]/-]+")
_STRUCTURE: Final = re.compile(r"[\\`*_{}\[\]<>#+!|~@&$=^]|:(?=\S)|(?<=www)\.", re.IGNORECASE)
"""Characters with a meaning in Markdown, or in GitHub's extension of it, within a line."""


def line(text: str) -> str:
    """Return `text` on one line; characters that are neither visible nor blank are escaped."""
    return printable(_COLOUR.sub("", text))


def plain(text: str) -> str:
    """Return `text` without colours, with control characters escaped.

    Line breaks stay, and tabs become blanks.
    """
    text = _COLOUR.sub("", text).replace("\r\n", "\n").expandtabs(8)
    return "\n".join(map(printable, text.split("\n")))


def address(url: str | None) -> str | None:
    """Return `url` if it is an http or https address, else `None`.

    The result is `None` for a script or for a local file.
    """
    return url if url and _ADDRESS.fullmatch(url) else None


def folder(path: str | None) -> str | None:
    """Return `path` if it is below the report's folder, else `None`."""
    if not path or not _PATH.fullmatch(path):
        return None
    parts = path.rstrip("/").split("/")
    return path if all(part not in ("", ".", "..") for part in parts) else None


def markdown(text: str) -> str:
    """Return `text` escaped for a place within a line of Markdown.

    Special characters become character references. In CommonMark a reference stands for the
    character itself and never for markup.
    """
    return _STRUCTURE.sub(lambda found: f"&#{ord(found[0])};", line(text)).replace("\n", " ")


def sanitize_report(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Escape every control character in the visible parts of a pytest report, in place."""
    report.sections = [(plain(title), plain(text)) for title, text in report.sections]
    shown: Any = report.longrepr
    if isinstance(shown, str):
        report.longrepr = plain(shown)
    elif isinstance(shown, tuple):
        path, number, reason = shown
        report.longrepr = (path, number, plain(reason))
    elif shown is not None:
        _sanitize_traceback(shown)


def _sanitize_traceback(shown: Any) -> None:
    chain = getattr(shown, "chain", None) or [
        (getattr(shown, "reprtraceback", None), getattr(shown, "reprcrash", None), None)
    ]
    for traceback, crash, _ in chain:
        if crash is not None:
            crash.message = plain(crash.message)
        for entry in getattr(traceback, "reprentries", ()):
            entry.lines = [plain(text) for text in entry.lines]
            for part in ("reprlocals", "reprfuncargs"):
                _disarm_part(getattr(entry, part, None))
    if getattr(shown, "longrepr", None) and isinstance(shown.longrepr, str):
        shown.longrepr = plain(shown.longrepr)  # a collection error
    if sections := getattr(shown, "sections", None):
        shown.sections = [(plain(name), plain(text), sep) for name, text, sep in sections]


def _disarm_part(part: Any) -> None:
    if part is None:
        return
    if hasattr(part, "lines"):
        part.lines = [plain(text) for text in part.lines]
    if getattr(part, "args", None):
        part.args = [(plain(name), plain(value)) for name, value in part.args]
