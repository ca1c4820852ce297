"""`netmodes merge`, `netmodes diff` and `netmodes report`, which read reports of earlier runs."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.report import compare, expectations, renamed_tests, schema, store
from harness.report.expectations import BadExpectations
from harness.report.merge import Unmergeable, merge
from harness.report.sanitize import line
from harness.report.schema import BadReport, Report

_BAD = 2
_JUDGED = (0, 1)
"""Exit statuses that the gate may change, as in a run."""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands about reports and expectation files, which run on any operating system."""
    about = "merge the reports of one run's shards into one report"
    join = commands.add_parser("merge", help=about, description=about)
    join.add_argument(
        "reports", nargs="+", type=Path, metavar="DIR", help="report folder of a shard"
    )
    join.add_argument(
        "--output",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="folder for the merged report (default: report)",
    )
    join.add_argument(
        "--expect",
        type=Path,
        metavar="FILE",
        help="fail unless the whole run has exactly the deviations in this expectation file",
    )
    join.set_defaults(run=_merge, anywhere=True)
    about = "list the differences between two reports; exit with 1 if there are any"
    differ = commands.add_parser("diff", help=about, description=about)
    differ.add_argument("old", type=Path, metavar="OLD", help="earlier report.json, or its folder")
    differ.add_argument("new", type=Path, metavar="NEW", help="later report.json, or its folder")
    differ.set_defaults(run=_diff, anywhere=True)
    about = "write one HTML page about one or more reports"
    page = commands.add_parser("report", help=about, description=about)
    page.add_argument(
        "reports", nargs="+", type=Path, metavar="REPORT", help="report.json, or its folder"
    )
    page.add_argument(
        "--output",
        type=Path,
        default=Path("comparison.html"),
        metavar="FILE",
        help="file to write (default: comparison.html)",
    )
    page.set_defaults(run=_page, anywhere=True)
    about = "update the test names in expectation files of an earlier release"
    rename = commands.add_parser("rename-tests", help=about, description=about)
    rename.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="expectation file to update"
    )
    rename.set_defaults(run=_rename, anywhere=True)


def _merge(arguments: argparse.Namespace) -> int:
    """Write the merged report and return the exit code.

    Return 1 if the report is partial, a shard failed, or the gate failed. Return 5 if no shard had
    a test, as pytest does.
    """
    try:
        whole = merge([schema.load(path) for path in arguments.reports])
        status = whole.exit
        if arguments.expect is not None:
            whole, status = _gated(whole, arguments.expect)
        if whole.partial:
            _print(f"partial: {'; '.join(whole.partial)}")
            status = status or 1
        whole = replace(whole, exit=status)
        for path in arguments.reports:
            store.copy_evidence(_folder(path), arguments.output)
        store.write(whole, arguments.output)
        store.append_step_summary(whole)
    except (Unmergeable, BadReport, BadExpectations, OSError) as error:
        return _fail("merge", error)
    totals = whole.totals
    _print(
        f"{totals.tests.total} tests, {totals.requirements.broken + totals.requirements.error} "
        f"requirements not kept: {arguments.output / store.PAGE}"
    )
    return status


def _gated(whole: Report, path: Path) -> tuple[Report, int]:
    listed, _, hint = renamed_tests.read(path)
    ran = {test.id for test in whole.tests}

    def gone(id_: str) -> bool:
        return id_ not in ran and whole.complete and not whole.selection.narrowed

    result = expectations.compare(whole, listed, file=os.fspath(path), gone=gone)
    gated = replace(whole, gate=result)
    for words in expectations.summary_lines(result, gated):
        _print(words)
    if hint:
        _print(hint)
    judged = whole.exit in _JUDGED
    return gated, int(not result.ok) if judged else whole.exit


def _diff(arguments: argparse.Namespace) -> int:
    """Print the differences between two reports; return 1 if there are any."""
    try:
        found = compare.changes(schema.load(arguments.old), schema.load(arguments.new))
    except (BadReport, OSError) as error:
        return _fail("diff", error)
    for change in found:
        _print(change)
    return int(bool(found))


def _page(arguments: argparse.Namespace) -> int:
    """Write the HTML page of one or several reports."""
    try:
        place = arguments.output.parent
        reports = [
            store.relocated(schema.load(path), _folder(path), place) for path in arguments.reports
        ]
        store.write_page(reports, arguments.output)
    except (BadReport, OSError) as error:
        return _fail("report", error)
    return 0


def _rename(arguments: argparse.Namespace) -> int:
    """Rewrite the files, sorted as `--write-expect` does; return 2 if a file cannot be read."""
    renamed = renamed_tests.Renamed.of_suites()
    for path in arguments.files:
        try:
            before = expectations.loads(path.read_text(encoding="utf-8"))
            after, changed = renamed.convert(before)
            store.replace(path, expectations.dumps(after))
        except (BadExpectations, OSError, UnicodeDecodeError) as error:
            return _fail(f"rename-tests: {path}", error)
        _print(f"{path}: {changed} of {len(before)} entries changed")
    return 0


def _folder(report: Path) -> Path:
    """Return the folder of a report; a user names a report by its file or by its folder."""
    return report if report.is_dir() else report.parent


def _print(words: str) -> None:
    sys.stdout.write(line(words) + "\n")


def _fail(command: str, error: Exception) -> int:
    sys.stderr.write(f"netmodes {command}: {line(str(error))}\n")
    return _BAD
