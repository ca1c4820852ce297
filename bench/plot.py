"""Plot of costs by number of containers; both axes are logarithmic.

A line of slope 1 is linear growth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 130, 20, 50
_LINE: Final = 16
_COLOURS: Final = {"started": "#2a7de1", "full mesh": "#d9822b", "removed": "#3a9d5d"}
_STYLE: Final = (
    "text{font:13px sans-serif;fill:#666}.grid{stroke:#8884;stroke-width:1}"
    "polyline{fill:none;stroke-width:2}"
)

Point = tuple[float, float]


def growth(tables: Sequence[dict[str, Any]]) -> str:
    """Return the SVG plot of a `bench.growth` record, with a line for each figure.

    The axes are seconds and containers.
    """
    lines = _lines(tables)
    points = [point for line in lines.values() for point in line] or [(1.0, 1.0)]
    xs, ys = ([math.log10(point[axis]) for point in points] for axis in (0, 1))
    left, right = math.floor(min(xs)), max(math.ceil(max(xs)), math.floor(min(xs)) + 1)
    low, high = math.floor(min(ys)), max(math.ceil(max(ys)), math.floor(min(ys)) + 1)

    def place(x: float, y: float) -> Point:
        across = (math.log10(x) - left) / (right - left)
        up = (math.log10(y) - low) / (high - low)
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        "<title>Seconds by containers on one bridge, both axes logarithmic</title>",
        f"<style>{_STYLE}</style>",
    ]
    for power in range(left, right + 1):
        x, y = place(10**power, 10**low)
        parts.append(f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{y}"/>')
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{10**power:g}</text>')
    for power in range(low, high + 1):
        x, y = place(10**left, 10**power)
        parts.append(f'<line class="grid" x1="{x}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{10**power:g} s</text>')
    parts += _drawn({name: [place(*point) for point in line] for name, line in lines.items()})
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">containers</text>')
    return "\n".join([*parts, "</svg>\n"])


def _lines(tables: Sequence[dict[str, Any]]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {name: [] for name in _COLOURS}
    for table in tables:
        for row in table["rows"] if table["title"].startswith("Growth") else ():
            size, _, what = row["name"].partition(" ")
            if what in found:
                found[what].append((float(size), sorted(row["figures"])[len(row["figures"]) // 2]))
    return {name: line for name, line in found.items() if line}


def _apart(wanted: dict[str, float]) -> dict[str, float]:
    """Return vertical positions for labels, close to the wanted ones and without overlaps."""
    found: dict[str, float] = {}
    free = -math.inf
    for name in sorted(wanted, key=wanted.__getitem__):
        found[name] = max(wanted[name], free)
        free = found[name] + _LINE
    return found


def _drawn(lines: dict[str, list[Point]]) -> Iterator[str]:
    labels = _apart({name: line[-1][1] for name, line in lines.items()})
    for name, line in lines.items():
        colour = _COLOURS[name]
        points = " ".join(f"{x},{y}" for x, y in line)
        yield f'<polyline points="{points}" stroke="{colour}"/>'
        for x, y in line:
            yield f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
        x, y = line[-1][0], labels[name]
        # An attribute, because the Content-Security-Policy of the page admits no inline style.
        yield f'<text x="{x + 8}" y="{y + 4}"><tspan fill="{colour}">{name}</tspan></text>'
