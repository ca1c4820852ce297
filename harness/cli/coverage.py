"""`netmodes coverage`: count the real bugs that the suites catch."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import faults

_ABOUT = "replay a sample of real bugs of container runtimes, and count those that the suites catch"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `netmodes coverage` to the parser."""
    parser = commands.add_parser("coverage", help=_ABOUT, description=_ABOUT)
    parser.add_argument(
        "-n",
        dest="workers",
        default="auto",
        metavar="N",
        help="number of replays to try at once (default: auto)",
    )
    parser.add_argument("--runtime", metavar="NAME", help="runtime to sabotage (default: mydocker)")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write DIR/coverage.md")
    parser.add_argument("--bugs", type=Path, metavar="DIR", help="bugs in place of suites/upstream")
    faults.add_sources(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Try the replays and print the tables.

    Return 0 if every trial agrees with its record, 1 if one does not, 2 for bad arguments.
    """
    workers = faults.workers(arguments, "netmodes coverage")
    if workers is None:
        return 2
    argv = ["-p", "harness.plugin.upstream_trials", "--at-once", str(workers), "--capture=sys"]
    argv += [f"--runtime={arguments.runtime}"] if arguments.runtime else []
    argv += [f"--page={arguments.write.resolve()}"] if arguments.write else []
    argv += [f"--bugs={arguments.bugs.resolve()}"] if arguments.bugs else []
    return faults.run_pytest(arguments, *argv)
