"""`netmodes compare`: run the same suites on several runtimes, one runtime after the other."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from harness.adapters import registry
from harness.cli.faults import SUITES
from harness.report import expectations, schema, store
from harness.report.compare import Column, as_json, as_markdown
from harness.report.expectations import BadExpectations
from harness.report.render import terminal
from harness.report.sanitize import line

TABLE, DATA, PAGE, LOG = "comparison.md", "comparison.json", "comparison.html", "pytest.log"
_RAN: Final = (0, 1)
"""Exit codes of a complete run."""
_LAST: Final = 3
"""Number of lines of the log that are shown for an incomplete run."""


def add(commands: Any) -> None:
    """Add `netmodes compare` to the subcommands of a parser."""
    about = "run the suites on several runtimes, and write one table of the results"
    parser = commands.add_parser("compare", help=about, description=about)
    parser.add_argument(
        "runtimes",
        nargs="*",
        metavar="NAME",
        help="runtime to test (default: every installed runtime)",
    )
    parser.add_argument(
        "-n",
        dest="workers",
        default="auto",
        metavar="N",
        help="number of workers in each run (default: auto)",
    )
    parser.add_argument(
        "--tests",
        action="append",
        default=[],
        metavar="PATH",
        help="tests to run instead of the suites; may be repeated",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="folder for the table and for each run's report (default: comparison)",
    )
    parser.add_argument(
        "--expect",
        type=Path,
        metavar="DIR",
        help="compare each run with the expectation file DIR/NAME.toml; exit with 1 if one differs",
    )
    parser.add_argument(
        "--write-expect",
        type=Path,
        metavar="DIR",
        help="write the deviations of each run to DIR/NAME.toml; reasons in the file are kept",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the suites on each runtime and write the table; return the exit code.

    Return 0 if every run is complete and as expected, 1 if not or if the disk is full, 2 for bad
    arguments, and 130 after an interrupt. After an interrupt, the table of the earlier runs
    remains.
    """
    names = list(dict.fromkeys(arguments.runtimes)) or _installed()
    if problems := list(_mistakes(names, arguments)) or list(_unwritable(names, arguments)):
        _complain(*problems)
        return 2
    console = terminal.console()
    tests = arguments.tests or [str(SUITES)]
    columns: list[Column] = []
    trouble = ""
    try:
        for number, name in enumerate(names, 1):
            with console.status(f"{escape(name)} ({number} of {len(names)})"):
                columns.append(_run_one(name, arguments, tests))
            _write(columns, arguments.output)
            console.print(line(str(columns[-1])), markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        there = f"; {arguments.output / TABLE} has the earlier runs" if columns else ""
        _complain(f"interrupted{there}")
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:  # such as a full disk
        trouble = f"cannot write to {arguments.output}: {error.strerror or error}"
        if rest := names[len(columns) :]:
            trouble += f"; not run: {', '.join(rest)}"
    if columns:
        from rich.markdown import Markdown  # loads pygments, which only this call needs

        console.print(Markdown(as_markdown(columns)))
    if trouble:
        _complain(trouble)
        return 1
    written = (str(arguments.output / name) for name in (TABLE, DATA, PAGE))
    console.print(", ".join(written), markup=False, soft_wrap=True)
    return int(any(column.note for column in columns))


def _complain(*problems: str) -> None:
    sys.stderr.write("".join(f"netmodes compare: {problem}\n" for problem in problems))


# --- checks before the first run ------------------------------------------------------


def _installed() -> list[str]:
    return [name for name in registry.names() if not _obstacle(name)]


def _obstacle(name: str, expected: Path | None = None) -> str:
    try:
        registry.find(name)
        if expected is not None:
            expectations.read(_expectations(name, expected))
    except registry.UnknownRuntime as error:
        return str(error)
    except BadExpectations as error:
        return f"--expect {error}"
    return ""


def _mistakes(names: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """Yield a sentence for each mistake in the command's arguments."""
    for name in names:
        if why := _obstacle(name, options.expect):
            yield f"{name}: {why}"
    for path in options.tests:
        if not os.path.exists(path.partition("::")[0]):
            yield f"--tests {path}: no such file or folder"
    if not re.fullmatch(r"auto|logical|[0-9]+", options.workers, re.ASCII):
        yield f"-n {options.workers}: invalid number of workers; give a number, auto or logical"


def _unwritable(names: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """Make the output folders. Yield a sentence for each file or folder that is not writable."""
    for option, folder in (("--output", options.output), ("--write-expect", options.write_expect)):
        try:
            if folder is not None:
                store.make_folder(folder)
        except OSError as error:
            yield f"{option} {folder}: {error.strerror or error}"
            return
    for name in names if options.write_expect else ():
        try:
            store.check_writable(_expectations(name, options.write_expect))
        except BadExpectations as error:
            yield f"{name}: --write-expect {error}"


def _expectations(name: str, folder: Path) -> Path:
    return folder / f"{_file_name(name)}.toml"


def _file_name(runtime: str) -> str:
    return re.sub(r"[^\w.-]+", "_", runtime)


# --- one run -----------------------------------------------------------------------


def _run_one(name: str, options: argparse.Namespace, tests: Sequence[str]) -> Column:
    """Run pytest on one runtime; return its report, or the reason why there is no report."""
    home = (options.output / _file_name(name)).absolute()
    home.mkdir(parents=True, exist_ok=True)
    (home / schema.NAME).unlink(missing_ok=True)
    words = ["-n", options.workers, *tests]
    words += [
        f"--{option.replace('_', '-')}={_expectations(name, folder)}"
        for option in ("expect", "write_expect")
        if (folder := getattr(options, option))
    ]
    kept = _expectations(name, options.write_expect) if options.write_expect else None
    before = _inode(kept)
    code = _pytest(name, home, words)
    output = (home / LOG).read_text(encoding="utf-8", errors="replace")
    try:
        report = store.relocated(schema.load(home), home, options.output)
    except (schema.BadReport, OSError):
        report = None
    if report is None or not report.tests:
        return Column(name, None, f"exit code {code}: {_last_lines(output)}")
    notes = list(report.partial)
    if report.gate is not None and not report.gate.ok:
        notes.append(f"differs from {report.gate.file}")
    if kept and _inode(kept) == before:
        notes.append(f"{kept} was not written; the reason is in {home / LOG}")
    if code not in _RAN and not notes:
        notes.append(f"exit code {code}")
    return Column(name, report, "; ".join(notes))


def _inode(file: Path | None) -> int | None:
    """Return the inode of a file; a different inode shows that the file was replaced."""
    try:
        return file.stat().st_ino if file else None
    except OSError:
        return None


def _pytest(name: str, home: Path, words: Sequence[str]) -> int:
    argv = [sys.executable, "-m", "pytest", *words, "-q", "-p", "harness.plugin"]
    argv += [f"--runtime={name}", f"--report={home}"]
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    with (home / LOG).open("wb") as log:
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            return process.wait()
        except KeyboardInterrupt:  # pytest gets the Ctrl-C too, and ends by itself
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
            raise
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait()


def _last_lines(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " ".join(lines[-_LAST:]) or "no output"


def _write(columns: Sequence[Column], output: Path) -> None:
    """Write the table after each run: an interrupt then loses only the current run."""
    store.replace(output / TABLE, as_markdown(columns))
    store.replace(output / DATA, as_json(columns))
    if reports := [column.report for column in columns if column.report is not None]:
        store.write_page(reports, output / PAGE)
