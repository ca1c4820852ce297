"""The table of a matrix for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection
from io import StringIO

from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.model.matrix import Entry, Matrix, agree, diff, printable
from harness.model.plan import FAMILIES, PROTOCOLS, Cell, Observation, Outcome, Promise

_SYMBOLS = {
    Outcome.REPLY: "✓",
    Outcome.WRONG_PEER: "≠",
    Outcome.REJECTED: "⊘",
    Outcome.NO_ROUTE: "—",
    Outcome.NO_NAME: "?",
    Outcome.DROPPED: "✗",
}
_NO_CELL, _WRONG, _NEVER_PROBED = "·", "!", "∅"
_LEGEND = (
    "✓ reply (TTL)  ✗ dropped  — no route  ? no name  ⊘ rejected  ≠ wrong peer",
    "! not as promised, with the observed outcome  ∅ never probed  · no such address",
)
_NAME_WIDTH = 22


def console() -> Console:
    """Return the console of a command's table; output that is no terminal has 160 columns."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def render(
    promised: Matrix[Promise],
    observed: Matrix[Observation] | None = None,
    *,
    width: int = 100,
    colour: bool = False,
) -> str:
    """Return a table for each source, with a row per target and a column per channel.

    An entry of the table shows the observation of a cell, marked if it differs from the promise.
    Without `observed` the entry shows the promise. The tables are at most `width` characters wide
    (at least 50). Symbols carry all information without colour.
    """
    cells = dict.fromkeys([*promised, *(observed or ())])
    if observed is None:
        verdict = Text(f"{len(cells)} cells promised", style="bold")
    else:
        wrong = len(diff(promised, observed))
        verdict = Text(f"{len(cells)} cells, {len(cells) - wrong} as promised, {wrong} wrong")
        verdict.stylize("bold red" if wrong else "bold green")
    blocks = [
        _block(source, cells, promised, observed)
        for source in dict.fromkeys(cell.source for cell in cells)
    ]
    sheet = StringIO()
    terminal = Console(
        file=sheet,
        width=width,
        force_jupyter=False,
        color_system="standard" if colour else None,
        no_color=not colour,
        legacy_windows=False,
    )
    picture = Columns(blocks, padding=(1, 3))
    terminal.print(picture, *map(Text, ("", *_LEGEND)), verdict, sep="\n")
    return "\n".join(line.rstrip() for line in sheet.getvalue().splitlines()) + "\n"


def _block(
    source: str,
    cells: Collection[Cell],
    promised: Matrix[Promise],
    observed: Matrix[Observation] | None,
) -> Table:
    """Return the table for one source."""
    channels = [
        (protocol, family)
        for protocol in PROTOCOLS
        for family in FAMILIES
        if any(cell.protocol == protocol and cell.family == family for cell in cells)
    ]
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="")
    title = Text(printable(source), style="bold")
    table.add_column(title, width=_NAME_WIDTH, overflow="fold")
    for number, (protocol, family) in enumerate(channels):
        again = number > 0 and channels[number - 1][0] == protocol
        table.add_column(Text(f"{'' if again else protocol}\n{family}"), min_width=3)
    for target in dict.fromkeys(cell.target for cell in cells if cell.source == source):
        marks = (_mark(Cell(source, target, *channel), promised, observed) for channel in channels)
        table.add_row(Text(f" {printable(target)}"), *(Text(*mark) for mark in marks))
    return table


def _mark(
    cell: Cell, promised: Matrix[Promise], observed: Matrix[Observation] | None
) -> tuple[str, str]:
    """Return the symbol and the colour of a cell."""
    promise = promised.get(cell)
    seen: Entry | None = promise if observed is None else observed.get(cell)
    if seen is None:
        return (_NO_CELL, "dim") if promise is None else (f"{_WRONG}{_NEVER_PROBED}", "bold red")
    shown = seen.ttl
    if seen.outcome is Outcome.REPLY and isinstance(seen, Observation):
        shown = seen.ttl or seen.seen_ttl
    ttl, symbol = str(shown or ""), _SYMBOLS[seen.outcome]
    if seen is not promise and not agree(promise, seen):
        return f"{_WRONG}{ttl or symbol}", "bold red"
    return f"{symbol}{ttl}", "green" if seen.outcome is Outcome.REPLY else "cyan"
