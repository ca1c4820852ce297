"""HTML page of the measurements: one self-contained file, made from the JSON record alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import jinja2
from markupsafe import Markup

from bench.plot import growth
from bench.timing import Row
from harness.report.render import html

_HERE: Final = Path(__file__).parent
_WIDTH: Final = 100.0
"""Length of the longest bar of a table, in units of the SVG."""


class Line(NamedTuple):
    """A row of the page; `length` is the length of the drawn bar, `limit` the bound's position."""

    name: str
    median: str
    least: str
    most: str
    unit: str
    ratio: str
    bar: str
    met: bool | None
    length: float
    limit: float | None


class Table(NamedTuple):
    """A table of the page; ratios refer to the row that `against` names."""

    title: str
    against: str
    lines: Sequence[Line]


def render(found: Mapping[str, Any]) -> str:
    """Return the HTML page with the results of `python -m bench`."""
    environment = html.environment_of(jinja2.FileSystemLoader(_HERE))
    style = html.resource("page.css") + (_HERE / "page.css").read_text(encoding="utf-8")
    tables = found["tables"]
    drawn = any(table["title"].startswith("Growth") for table in tables)
    drawing = growth(tables) if drawn else ""
    return environment.get_template("page.html.j2").render(
        machine=found["machine"],
        failed=found["failed"],
        tables=[_table(table) for table in tables],
        growth=Markup(drawing),
        growth_style=html.digest(_style_of(drawing)) if drawn else "",
        style=Markup(style),
        style_hash=html.digest(style),
        width=_WIDTH,
    )


def _table(table: Mapping[str, Any]) -> Table:
    rows = [Row.of(item) for item in table["rows"]]
    base = next((row.median for row in rows if row.name == table["against"]), None)
    return Table(table["title"], table["against"] or "", list(_lines(rows, base)))


def _lines(rows: Sequence[Row], base: float | None) -> Iterator[Line]:
    longest: dict[str, float] = {}
    for row in rows:
        longest[row.unit] = max(longest.get(row.unit, 0.0), row.median, row.bar or 0.0)
    for row in rows:
        scale = _WIDTH / (longest[row.unit] or 1.0)
        yield Line(
            name=row.name,
            median=row.shown(row.median),
            least=row.shown(min(row.figures)),
            most=row.shown(max(row.figures)),
            unit=row.unit,
            ratio=f"{row.median / base:.2f}" if base else "",
            bar=row.promise,
            met=row.met,
            length=round(row.median * scale, 1),
            limit=None if row.bar is None else round(row.bar * scale, 1),
        )


def _style_of(drawing: str) -> str:
    return drawing.partition("<style>")[2].partition("</style>")[0]
