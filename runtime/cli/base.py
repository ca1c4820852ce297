"""What every part of the grammar is made of: a parser, and one command more."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NoReturn

from runtime.errors import InvalidError, MydockerError, OutputError, unheard

_FORMAT = "json, or a Go template, as in '{{.Name}}'"
TABLE = "json, or a Go template; 'table {{.ID}}\\t…' puts headings above columns"


class Parser(argparse.ArgumentParser):
    """A parser, and so are those of its commands, whose help is as wide as the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; what a command does not know, it refuses itself, with its usage."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


class _Formatter(argparse.HelpFormatter):
    """What asks for the width itself: argparse has shutil do it, which imports every archiver."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """What $COLUMNS says, else the terminal, else 80."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def add_command(
    group: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    action: str = "",
    *,
    more: str = "",
) -> argparse.ArgumentParser:
    """Add a command; `text` says in a few words what it does, `more` what else helps to know."""
    description = f"{text[0].upper()}{text[1:]}. {more}".strip()
    made = group.add_parser(name, help=text, description=description)
    made.set_defaults(action=action or name)
    return made


def add_format(command: argparse.ArgumentParser) -> None:
    """Give a command that tells everything about something the option to tell less."""
    command.add_argument("-f", "--format", default="", metavar="TEMPLATE", help=_FORMAT)


def say(text: str) -> None:
    """Write one answer, at once; `OutputError` where that cannot be, for want of room or medium."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # nobody wants it any more
    except OSError as error:
        raise untold(error) from error


def untold(error: OSError) -> OutputError:
    """What it means that an answer cannot be written."""
    return unheard("tell what was asked for", error.errno or 0)


def complain(error: Exception) -> None:
    """Tell what went wrong; a call's own words without the number that Python puts before them."""
    told = str(error)
    if isinstance(error, OSError) and error.strerror:
        told = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    with suppress(OSError):  # nobody is there to be told; the exit code tells
        sys.stderr.write(f"mydocker: {told}\n")


def each(references: Sequence[str], act: Callable[[str], object]) -> int:
    """Do it for all, whatever becomes of the others; 1 when one could not be done.

    Says what `act` answers in words or numbers, else what it was done to.
    """
    code = 0
    for reference in references:
        try:
            answer = act(reference)
        except MydockerError as error:
            complain(error)
            code = 1
        else:
            say(str(answer) if isinstance(answer, int | str) else reference)
    return code


def each_at_once(references: Sequence[str], begin: Callable[[str], Callable[[], object]]) -> int:
    """As `each`, of what takes its time: it is begun for all before one is waited for.

    `begin` gives what brings it to its end.
    """
    begun: dict[str, Callable[[], object]] = {}
    for reference in references:
        try:
            begun[reference] = begin(reference)
        except MydockerError as error:
            begun[reference] = partial(_tell, error)
    return each(references, lambda reference: begun[reference]())


def _tell(error: MydockerError) -> NoReturn:
    raise error


_SIZE: Final = r"(\d+(?:\.\d+)?)([bkmgt]?)(?:i?b)?"


def pairs(option: str, entries: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` entries of an option; `InvalidError` for anything else."""
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals:
            raise InvalidError(f"use {option} {entry}", "it is not KEY=VALUE")
        found[key] = value
    return found


def size(option: str, text: str) -> int:
    """Bytes, as Docker writes them: 64m, 1.5g, 1024; `""` is 0."""
    if not text:
        return 0
    found = re.fullmatch(_SIZE, text.lower())
    if found is None:
        raise InvalidError(f"use {option} {text}", "it is no size", remedy=f"{option} 64m")
    power = max(" kmgt".find(found[2] or " "), 0)
    return int(float(found[1]) * 1024**power)
