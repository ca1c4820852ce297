"""The first page of the evidence folder: which failures left some, and where it is."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import quote

from harness.report.schema import Report
from harness.report.text import folder, markdown


def index(report: Report, directory: str) -> str:
    """Markdown, for a file in `directory` of the report's; `""` where nothing left any."""
    lines = list(_lines(report, directory))
    if not lines:
        return ""
    head = f"# What failed, and what is known of it: {markdown(report.implementation.name)}\n\n"
    return head + "".join(f"{line}\n" for line in lines)


def _lines(report: Report, directory: str) -> Iterator[str]:
    for test in report.tests:
        for failure in test.failures:
            if (found := folder(failure.evidence)) is None:
                continue
            where = posixpath.relpath(found, directory)
            words = failure.message.strip().splitlines()
            about = ", ".join(markdown(id_) for id_ in (*test.breaks, *test.requirements))
            yield f"- [{markdown(test.id)}](<{quote(where)}/>)" + (f" ({about})" if about else "")
            if words:
                yield f"  {markdown(words[0])}"
