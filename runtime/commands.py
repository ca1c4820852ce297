"""What every part of the grammar is made of: a parser, and one command more."""

from __future__ import annotations

import argparse
import os
from typing import Any

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
