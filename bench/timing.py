"""Take turns, take medians, print one table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds per round of one contestant; `unit` says what one round does."""

    name: str
    seconds: tuple[float, ...]
    bar: float | None = None
    """Seconds that the median must not exceed, where there is such a promise."""

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)


def alternate(
    contestants: Sequence[tuple[str, Callable[[], float]]], *, rounds: int, warm_up: int = 1
) -> list[Row]:
    """Let each run in turn, `rounds` times after `warm_up` that do not count.

    A contestant returns the seconds that count, so that it can leave its own
    set-up and clean-up out.
    """
    taken: dict[str, list[float]] = {name: [] for name, _ in contestants}
    for number in range(warm_up + rounds):
        for name, contestant in contestants:
            seconds = contestant()
            if number >= warm_up:
                taken[name].append(seconds)
    return [Row(name, tuple(seconds)) for name, seconds in taken.items()]


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def show(title: str, rows: Sequence[Row], *, against: str | None = None) -> None:
    """Print a table: median, minimum, maximum in milliseconds, and the ratio to `against`."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for head in ("", "median ms", "min", "max", "bar", "ratio"):
        table.add_column(head, justify="left" if not head else "right")
    base = next((row.median for row in rows if row.name == against), None)
    for row in rows:
        figures = (row.median, min(row.seconds), max(row.seconds))
        table.add_row(
            row.name,
            *(f"{value * 1000:.1f}" for value in figures),
            f"≤ {row.bar * 1000:.0f}" if row.bar else "",
            f"{row.median / base:.3f}" if base else "",
        )
    Console(width=100).print(table)
