"""One command of the command line, as every part of the grammar adds it."""

from __future__ import annotations

import argparse


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
