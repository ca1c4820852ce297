"""What a test's report says, before a terminal sees it: text of the runtime under test.

A failure quotes what a runtime printed. Control characters in it would act on the
terminal of whoever reads the run's output.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.report.text import plain


def disarm(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Write every control character in what a report shows as an escape, in place."""
    report.sections = [(plain(title), plain(text)) for title, text in report.sections]
    told: Any = report.longrepr
    if isinstance(told, str):
        report.longrepr = plain(told)
    elif isinstance(told, tuple):
        path, number, reason = told
        report.longrepr = (path, number, plain(reason))
    elif told is not None:
        _disarm_traceback(told)


def _disarm_traceback(told: Any) -> None:
    chain = getattr(told, "chain", None) or [
        (getattr(told, "reprtraceback", None), getattr(told, "reprcrash", None), None)
    ]
    for traceback, crash, _ in chain:
        if crash is not None:
            crash.message = plain(crash.message)
        for entry in getattr(traceback, "reprentries", ()):
            entry.lines = [plain(text) for text in entry.lines]
            for part in ("reprlocals", "reprfuncargs"):
                _disarm_part(getattr(entry, part, None))
    if getattr(told, "longrepr", None) and isinstance(told.longrepr, str):
        told.longrepr = plain(told.longrepr)  # a collection error
    if sections := getattr(told, "sections", None):
        told.sections = [(plain(name), plain(text), sep) for name, text, sep in sections]


def _disarm_part(part: Any) -> None:
    if part is None:
        return
    if hasattr(part, "lines"):
        part.lines = [plain(text) for text in part.lines]
    if getattr(part, "args", None):
        part.args = [(plain(name), plain(value)) for name, value in part.args]
