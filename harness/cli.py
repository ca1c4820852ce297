"""The command `netmodes`: what a person asks outside of a test run."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from harness import doctor
from harness.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Bad usage exits with 2, as argparse does."""
    arguments = _parser().parse_args(argv)
    if sys.platform != "linux":
        sys.stderr.write("netmodes: live work needs Linux; the pure tests run here as well\n")
        return 1
    run: int = arguments.run(arguments)
    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netmodes", description="Does a container runtime network the way it says it does?"
    )
    parser.add_argument("--version", action="version", version=f"netmodes {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    about = "try what live tests need from this machine, and say what to do where it is missing"
    examine = commands.add_parser("doctor", help=about, description=about)
    examine.add_argument("--json", action="store_true", help="print the findings as JSON")
    examine.set_defaults(run=_doctor)
    return parser


def _doctor(arguments: argparse.Namespace) -> int:
    """Print every finding; 1 when something required is missing."""
    findings = doctor.diagnose()
    if arguments.json:
        json.dump([asdict(finding) for finding in findings], sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _picture(findings)
    return int(any(finding.required and not finding.ok for finding in findings))


def _picture(findings: Sequence[doctor.Finding]) -> None:
    table = Table(title=f"Live tests on Linux {platform.release()}", title_justify="left", box=None)
    for heading in ("", "what", "needed", "why not, and what to do"):
        table.add_column(heading)
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]missing[/]"
        needed = "required" if finding.required else "optional"
        table.add_row(
            mark, finding.name, needed, ". ".join(filter(None, (finding.why, finding.remedy)))
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
