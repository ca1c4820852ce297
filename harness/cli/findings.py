"""`netmodes findings`: print or write the known violations of requirements by runtimes."""

from __future__ import annotations

import argparse
import importlib.resources
import sys
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from harness.model import requirements
from harness.report import findings
from harness.report.findings import BadFindings, FindingsFile
from harness.report.render import finding_pages, terminal


def add(commands: Any) -> None:
    """Add `netmodes findings` to the subcommands of a parser."""
    about = "list the known violations of requirements in runtimes, or write their pages"
    parser = commands.add_parser("findings", help=about, description=about)
    parser.add_argument("--runtime", metavar="NAME", help="list the findings of this runtime only")
    parser.add_argument(
        "--write", type=Path, metavar="DIR", help="write DIR/findings.md and DIR/findings/ID.md"
    )
    parser.set_defaults(run=run, anywhere=True)


def run(arguments: argparse.Namespace) -> int:
    """Print the table or write the pages.

    Return 2 if the data is malformed, the runtime has no findings, or the folder cannot be written.
    """
    try:
        catalogue = requirements.of_suites()
        files = findings.load(importlib.resources.files("suites") / "findings", catalogue)
    except (requirements.CatalogueError, BadFindings) as error:
        return _fail(str(error))
    if arguments.write is None:
        return _print(files, arguments.runtime)
    try:
        finding_pages.write(files, catalogue, arguments.write)
    except OSError as error:
        return _fail(f"cannot write to {arguments.write}: {error.strerror or error}")
    return 0


def _print(files: tuple[FindingsFile, ...], runtime: str | None) -> int:
    shown = [
        finding
        for file in files
        for finding in file.finding
        if runtime is None or runtime in finding.runtime
    ]
    if not shown:
        known = sorted({name for file in files for item in file.finding for name in item.runtime})
        return _fail(f"there are no findings of {runtime}; there are of {', '.join(known)}")
    table = Table(box=None)
    table.add_column("requirements", max_width=22)
    table.add_column("finding")
    table.add_column("kind", no_wrap=True)
    table.add_column("upstream", max_width=40)
    for item in shown:
        upstream = (
            ", ".join(map(finding_pages.link_text, item.upstream)) or finding_pages.NOT_REPORTED
        )
        ids = ", ".join(item.requirements)
        table.add_row(ids, escape(item.title), item.kind, escape(upstream))
    terminal.console().print(table)
    return 0


def _fail(message: str) -> int:
    sys.stderr.write(f"netmodes findings: {message}\n")
    return 2
