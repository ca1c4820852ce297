"""`netmodes faults` and `netmodes triangle`: check whether tests detect faults of a runtime.

A fault is an error that netmodes injects into the runtime. The triangle is the table of
requirements, with the tests and the faults of each.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from rich.table import Table

from harness.faults.fault import FaultError, discover
from harness.model import requirements
from harness.model.requirements import Catalogue
from harness.plugin.workers import default_number
from harness.report.render import terminal

SUITES: Final = Path(__file__).parents[2] / "suites"
_ABOUT: Final = "sabotage the runtime with each fault, and check that the suites catch it"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `netmodes faults` and `netmodes triangle` to the parser."""
    parser = commands.add_parser("faults", help=_ABOUT, description=_ABOUT)
    parser.add_argument("ids", nargs="*", metavar="ID", help="fault to try (default: all)")
    parser.add_argument(
        "-n",
        dest="workers",
        default="auto",
        metavar="N",
        help="number of faults to try at once (default: auto)",
    )
    parser.add_argument("--list", action="store_true", help="list the faults, and try none")
    parser.add_argument("--runtime", metavar="NAME", help="runtime to sabotage (default: mydocker)")
    parser.set_defaults(run=run)
    about = "list the tests and faults of each requirement; exit with 1 if one has none"
    table = commands.add_parser("triangle", help=about, description=about)
    add_sources(parser)
    add_sources(table)
    table.set_defaults(run=triangle)


def add_sources(command: argparse.ArgumentParser) -> None:
    """Add the options that name further faults and other tests."""
    command.add_argument(
        "-p",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="module with further faults; may be repeated",
    )
    command.add_argument(
        "--tests",
        action="append",
        default=[],
        metavar="PATH",
        help="tests to use instead of the suites; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Try the faults; return 0 if tests catch all of them, 1 if not, 2 for bad arguments."""
    rows = requirements.of_suites()
    if arguments.list:
        return _list(rows, arguments.modules)
    at_once = workers(arguments, "netmodes faults")
    if at_once is None:
        return 2
    argv = ["-p", "harness.plugin.fault_trials", "--at-once", str(at_once), "--capture=sys"]
    argv += [f"--runtime={arguments.runtime}"] if arguments.runtime else []
    argv += [word for id_ in arguments.ids for word in ("--try", id_)]
    return run_pytest(arguments, *argv)


def triangle(arguments: argparse.Namespace) -> int:
    """Print the tests and faults of each requirement; return the exit code.

    Return 0 if every requirement has both, 1 if one lacks a test or a fault, 2 for bad arguments.
    """
    return run_pytest(
        arguments, "-p", "harness.plugin.fault_trials", "--triangle", "--collect-only"
    )


def run_pytest(arguments: argparse.Namespace, *options: str) -> int:
    """Run pytest on the chosen tests in a new process and return its exit code.

    A new process is needed because pytest rewrites assertions only in modules that are not loaded
    yet.
    """
    argv = [sys.executable, "-m", "pytest", *(arguments.tests or [str(SUITES)]), "-qq"]
    argv += ["--no-header", "-p", "no:xdist", "-p", "harness.plugin", "--no-evidence"]
    argv += [word for module in arguments.modules for word in ("-p", module)]
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    with subprocess.Popen([*argv, *options], env=environment) as process:
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:  # pytest gets the Ctrl-C too, and ends by itself
                continue
            return code if code in (0, 1) else 2


def workers(arguments: argparse.Namespace, command: str) -> int | None:
    """Return the number of trials at once, or `None` after an error message."""
    text: str = arguments.workers
    if text == "auto":
        return default_number()
    if text.isdecimal() and int(text):
        return int(text)
    sys.stderr.write(
        f"{command}: -n {text}: invalid number of trials; give a number from 1, or auto\n"
    )
    return None


def _list(rows: Catalogue, modules: list[str]) -> int:
    try:
        faults = discover(rows, [importlib.import_module(name) for name in modules])
    except (FaultError, ImportError) as error:
        sys.stderr.write(f"netmodes faults: {error}\n")
        return 2
    table = Table(box=None)
    table.add_column("fault", no_wrap=True)  # users copy the names
    for heading in ("violates", "description", "known bug"):
        table.add_column(heading, overflow="fold")
    for item in faults:
        table.add_row(item.id, ", ".join(item.violates), item.about, ", ".join(item.history))
    terminal.console().print(table)
    return 0
