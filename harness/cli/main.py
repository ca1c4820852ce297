"""The command `netmodes`: its subcommands, and the errors that all subcommands share."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from harness import __version__
from harness.cli import compare, coverage, faults, runtimes
from harness.cli import findings as findings_command
from harness.cli import reports as report_commands
from harness.model import requirements
from harness.model.requirements import Requirement, UnknownRequirement
from harness.model.topology import Topology
from harness.plugin import workers
from harness.sandbox import doctor

_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of a full or broken disk, which are not a bug of the command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, which is 2 for bad usage, as in argparse."""
    words = list(sys.argv[1:] if argv is None else argv)
    _replace_unencodable()
    if words[:1] == ["ping"]:
        from harness.lab import ping  # only this command needs the probe's sockets

        return ping.main(words[1:])
    if words[:1] == [workers.COMMAND]:
        return workers.main(words[1:])
    arguments = _parser().parse_args(words)
    if sys.platform != "linux" and not arguments.anywhere:
        sys.stderr.write(
            "netmodes: this command needs Linux; on other systems, run only the tests that need "
            "no sandbox: pytest --sandbox=never\n"
        )
        return 1
    try:
        run: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as head(1) does
        _discard_output()
        return 1
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _discard_output()
        with contextlib.suppress(OSError):  # standard error may be full too
            sys.stderr.write(f"netmodes: cannot write all output: {error.strerror}\n")
        return 1
    return run


def _replace_unencodable() -> None:
    """Make standard output and standard error replace characters that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _discard_output() -> None:
    """Redirect standard output to /dev/null after a failed write.

    Python flushes standard output at exit, and that would fail again.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netmodes", description="Check that a container runtime networks as it promises."
    )
    parser.add_argument("--version", action="version", version=f"netmodes {__version__}")
    parser.set_defaults(anywhere=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    about = "check that this machine can run live tests, and say how to fix what is missing"
    examine = commands.add_parser("doctor", help=about, description=about)
    examine.add_argument("--json", action="store_true", help="print the findings as JSON")
    examine.set_defaults(run=_doctor)
    about = "list the requirements for a runtime, or show some of them in full"
    rows = commands.add_parser("requirements", help=about, description=about)
    rows.add_argument("ids", nargs="*", metavar="ID", help="id of a requirement to show in full")
    rows.set_defaults(run=_requirements, anywhere=True)
    about = "open a shell in a world, on a host with the runtime and its containers"
    lab = commands.add_parser("lab", help=about, description=about)
    lab.add_argument(
        "--runtime", default="mydocker", metavar="NAME", help="runtime to use (default: mydocker)"
    )
    lab.add_argument(
        "--routers",
        type=int,
        default=3,
        metavar="N",
        help="number of routers between LAN and internet (default: 3)",
    )
    started = lab.add_mutually_exclusive_group()
    started.add_argument("--no-cast", action="store_true", help="start no containers")
    started.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="start the containers of this plan instead of the reference plan",
    )
    lab.add_argument(
        "command",
        nargs="*",
        metavar="COMMAND",
        help="command to run instead of a shell; put -- before it",
    )
    lab.set_defaults(run=_lab)
    about = "in the lab: send an echo request to each host, and print the TTL of the reply"
    commands.add_parser("ping", help=about)  # main() passes it its arguments
    about = "run Python in a new sandbox; pytest-xdist starts workers by ssh with it"
    commands.add_parser(workers.COMMAND, help=about)  # Python parses the rest
    runtimes.add(commands)
    compare.add(commands)
    faults.register(commands)
    coverage.register(commands)
    report_commands.add(commands)
    findings_command.add(commands)
    return parser


def _doctor(arguments: argparse.Namespace) -> int:
    """Print the result of every check; return 1 if a required capability is missing."""
    findings = doctor.diagnose()
    if arguments.json:
        json.dump([asdict(finding) for finding in findings], sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _print_findings(findings)
    return int(any(finding.required and not finding.ok for finding in findings))


def _lab(arguments: argparse.Namespace) -> int:
    """Run the lab and return its exit code, which is 2 for bad arguments."""
    # This loads the whole harness, which other commands do not need.
    from harness.lab import session
    from harness.model import plan_file

    try:
        topology = Topology(routers=arguments.routers)
        plan = plan_file.read(arguments.plan) if arguments.plan else None
    except (ValueError, OSError) as error:
        sys.stderr.write(f"netmodes lab: {error}\n")
        return 2
    order = session.LabOptions(
        runtime=arguments.runtime,
        topology=topology,
        plan=plan,
        cast=not arguments.no_cast,
        command=tuple(arguments.command),
    )
    return session.run(order)


def _print_findings(findings: Sequence[doctor.Finding]) -> None:
    table = Table(title=f"Live tests on Linux {platform.release()}", title_justify="left", box=None)
    for heading in ("", "check", "needed", "problem and remedy"):
        table.add_column(heading)
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]missing[/]"
        needed = "required" if finding.required else "optional"
        table.add_row(
            mark, finding.name, needed, ". ".join(filter(None, (finding.why, finding.remedy)))
        )
    Console().print(table)


def _requirements(arguments: argparse.Namespace) -> int:
    """Print a list of all requirements, or the given ones in full; return 2 for an unknown id."""
    catalogue = requirements.of_suites()
    try:
        shown = [catalogue[id_] for id_ in arguments.ids]
    except UnknownRequirement as error:
        sys.stderr.write(f"netmodes: {error}\n")
        return 2
    console = Console(highlight=False)
    if shown:
        console.print("\n\n".join(map(_in_full, shown)), markup=False, soft_wrap=True)
        return 0
    table = Table(box=None)
    for heading in ("id", "level", "statement"):
        table.add_column(heading)
    for requirement in catalogue:
        table.add_row(requirement.id, requirement.level, requirement.statement)
    console.print(table)
    return 0


def _in_full(requirement: Requirement) -> str:
    lines = [f"{requirement.id} ({requirement.level}) {requirement.statement}"]
    for title, entries in (
        ("source", requirement.sources),
        ("known bug", requirement.history),
        ("dialect field", requirement.dialect),
        ("needs feature", sorted(requirement.features)),
    ):
        lines += [f"  {title}: {entry}" for entry in entries]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
