"""Measurements of contestants that take turns, and tables of their figures.

`python -m bench` records the tables too.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

RECORD: Final = "NETMODES_BENCH_RECORD"
"""Environment variable: a file to which every table is appended as a line of JSON."""


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one contestant, one for each round."""

    name: str
    figures: tuple[float, ...]
    bar: float | None = None
    """Upper bound on the median, or lower bound for a rate; `None` without a bound."""
    unit: str = "ms"
    """Unit of the printed figures. With `ms` `figures` and `bar` are in seconds."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Return the row from its JSON record."""
        return cls(told["name"], tuple(told["figures"]), told["bar"], told["unit"])

    @property
    def median(self) -> float:
        """The median of the figures."""
        return statistics.median(self.figures)

    def shown(self, figure: float) -> str:
        """Return a figure as text, in the unit of the row."""
        return f"{figure * 1000:.1f}" if self.unit == "ms" else f"{figure:,.1f}"

    @property
    def more_is_better(self) -> bool:
        """True if the figures are rates, for which more is better."""
        return self.unit.endswith("/s")

    @property
    def promise(self) -> str:
        """The bound as text, in the unit of the row; an empty text without a bound."""
        if self.bar is None:
            return ""
        return f"{'≥' if self.more_is_better else '≤'} {self.shown(self.bar)}"

    @property
    def met(self) -> bool | None:
        """True if the median is within the bound; `None` without a bound."""
        if self.bar is None:
            return None
        return self.median >= self.bar if self.more_is_better else self.median <= self.bar


def alternate(
    contestants: Sequence[tuple[str, Callable[[], float]]],
    *,
    rounds: int,
    warm_up: int = 1,
    unit: str = "ms",
    before: Callable[[], object] = bool,
) -> list[Row]:
    """Run the contestants in turn, and return a row for each of them.

    Each contestant runs `rounds` times, after `warm_up` rounds that are not counted. A contestant
    returns its figure, so that the figure can exclude set-up and clean-up. `before` is called
    before each contestant. It waits for work that the previous contestant left to the kernel.
    """
    taken: dict[str, list[float]] = {name: [] for name, _ in contestants}
    for number in range(warm_up + rounds):
        for name, contestant in contestants:
            before()
            figure = contestant()
            if number >= warm_up:
                taken[name].append(figure)
    return [Row(name, tuple(figures), unit=unit) for name, figures in taken.items()]


def timed(work: Callable[[], object]) -> float:
    """Return the duration of `work` in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def show(title: str, rows: Sequence[Row], *, against: str | None = None) -> None:
    """Print a table of the rows: median, minimum, maximum, and the ratio to the row `against`."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for head in ("", "median", "min", "max", "unit", "bar", "ratio"):
        table.add_column(head, justify="left" if not head else "right")
    base = next((row.median for row in rows if row.name == against), None)
    for row in rows:
        figures = (row.median, min(row.figures), max(row.figures))
        table.add_row(
            row.name,
            *(row.shown(figure) for figure in figures),
            row.unit,
            row.promise,
            f"{row.median / base:.3f}" if base else "",
        )
    Console(width=100).print(table)
    if where := os.environ.get(RECORD):
        told = {"title": title, "against": against, "rows": [_as_data(row) for row in rows]}
        with Path(where).open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


def _as_data(row: Row) -> dict[str, object]:
    figures = list(row.figures)
    return {"name": row.name, "unit": row.unit, "bar": row.bar, "figures": figures}
