"""Building blocks of commands: options, the parser, output and error messages.

A command is a function with the decorator `@command`, which lists the options. The function's
docstring is the help text. The list of commands shows its first line, and `COMMAND --help` all of
it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runtime.errors import InvalidError, MydockerError, OutputError, output_lost

if TYPE_CHECKING:
    from runtime.engine import Engine

Action = Callable[["Engine", argparse.Namespace], int]
"""Carries out a command and returns its exit code."""
Subparsers = argparse._SubParsersAction


class Option(NamedTuple):
    """Parameters of `add_argument` for one option or positional argument."""

    names: tuple[str, ...]
    settings: dict[str, Any]


def option(*names: str, **settings: Any) -> Option:
    """Describe an option or positional argument in the terms of `add_argument`."""
    return Option(names, settings)


def repeated(*names: str, **settings: Any) -> Option:
    """Describe an option that may be given several times."""
    return Option(names, {"action": "append", "default": [], **settings})


def flag(*names: str, **settings: Any) -> Option:
    """Describe an option without a value."""
    return Option(names, {"action": "store_true", **settings})


REFERENCE: Final = "name, ID or unique prefix of an ID"
CONTAINER: Final = option("container", metavar="CONTAINER", help=REFERENCE)
CONTAINERS: Final = option("containers", nargs="+", metavar="CONTAINER", help=REFERENCE)
QUIET: Final = flag("-q", "--quiet", help="print only IDs")
FORMAT: Final = option(
    *("-f", "--format"),
    default="",
    metavar="TEMPLATE",
    help="output format: json, or a Go template such as '{{.Name}}'",
)
TABLE_FORMAT: Final = option(
    "--format",
    default="",
    metavar="TEMPLATE",
    help="output format: json, or a Go template; 'table {{.ID}}\\t…' adds column headings",
)


class Command(NamedTuple):
    """A command, its options and the function that carries it out."""

    name: str
    help: str
    """The docstring of the function."""
    options: tuple[Option, ...]
    action: Action

    def add_to(self, commands: Subparsers[argparse.ArgumentParser]) -> None:
        """Add the command's parser.

        The parsed namespace has the attribute `function`, which runs the command.
        """
        first, _, rest = self.help.partition("\n")
        made = commands.add_parser(
            self.name,
            help=f"{first[0].lower()}{first[1:].rstrip('.')}",
            description=" ".join([first, *rest.split()]),
        )
        made.set_defaults(function=self.run)
        for names, settings in self.options:
            made.add_argument(*names, **settings)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return its exit code."""
        from runtime.engine import Engine  # help and completion do without

        return self.action(Engine(), arguments)


class Group(NamedTuple):
    """A command with subcommands, such as `network`."""

    name: str
    help: str
    description: str
    commands: tuple[Command, ...]

    def add_to(self, commands: Subparsers[argparse.ArgumentParser]) -> None:
        """Add the parsers of the group and of its commands."""
        made = commands.add_parser(self.name, help=self.help, description=self.description)
        below = made.add_subparsers(required=True, metavar="COMMAND")
        for item in self.commands:
            item.add_to(below)


def command(name: str, *options: Option) -> Callable[[Action], Command]:
    """Make a function the command `name` with these options."""
    return lambda action: Command(name, action.__doc__ or name, options, action)


class Parser(argparse.ArgumentParser):
    """Parser with help as wide as the terminal; subcommands have parsers of this class too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but report unknown arguments with the subcommand's usage."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


class _Formatter(argparse.HelpFormatter):
    """Help formatter that finds the terminal's width without shutil.

    argparse imports shutil to find the width, and shutil imports the modules of all archive
    formats.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """Return the width of help texts: $COLUMNS, else the width of the terminal, else 80."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


# --- output and errors -----------------------------------------------------------


def print_line(text: str) -> None:
    """Write a line to standard output and flush; raise `OutputError` if that fails."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # the reader has closed the pipe on purpose
    except OSError as error:
        raise unwritable(error) from error


def unwritable(error: OSError) -> OutputError:
    """Return the error to report when standard output cannot be written to."""
    return output_lost("write to standard output", error.errno or 0)


def print_error(error: Exception) -> None:
    """Write an error message to standard error; leave out the errno of an `OSError`."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    with suppress(OSError):  # standard error is closed: the exit code is left
        sys.stderr.write(f"mydocker: {text}\n")


def for_each(references: Sequence[str], act: Callable[[str], object]) -> int:
    """Call `act` for every reference, also after an error; return 1 if any call failed.

    Print the result of `act` if the result is text or a number, else the reference.
    """
    code = 0
    for reference in references:
        try:
            answer = act(reference)
        except MydockerError as error:
            print_error(error)
            code = 1
        else:
            print_line(str(answer) if isinstance(answer, int | str) else reference)
    return code


# --- values of options -----------------------------------------------------------

_SIZE: Final = r"(\d+(?:\.\d+)?)([bkmgt]?)(?:i?b)?"


def pairs(name: str, entries: Sequence[str]) -> dict[str, str]:
    """Return the `KEY=VALUE` entries of the option `name`; `InvalidError` for anything else."""
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals:
            raise InvalidError(f"use {name} {entry}", "the value is not KEY=VALUE")
        found[key] = value
    return found


def size(name: str, text: str) -> int:
    """Return a size in bytes from Docker's notation: 64m, 1.5g, 1024; 0 for `""`."""
    if not text:
        return 0
    found = re.fullmatch(_SIZE, text.lower())
    if found is None:
        raise InvalidError(f"use {name} {text}", "the value is not a size", remedy=f"{name} 64m")
    power = max(" kmgt".find(found[2] or " "), 0)
    return int(float(found[1]) * 1024**power)
