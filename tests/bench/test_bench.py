"""Tests of the benchmarks, each in its smallest size."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from base64 import b64encode
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.__main__ import BENCHES
from bench.page import render
from bench.plot import growth
from tests.support.programs import ROOT, environment


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m bench` with these arguments until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(600)  # every step of a benchmark has a time limit; one step starts docker
@pytest.mark.parametrize("name", BENCHES)
def test_small_bench_has_a_figure_per_contestant(name: str, tmp_path: Path) -> None:
    """A benchmark prints the figures of each contestant.

    The figures are also written to JSON, with a description of the machine.
    """
    done = bench("--small", "--json", str(tmp_path / "found.json"), name)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["machine"]["processors"] > 0
    assert found["failed"] == []
    assert found["tables"]
    for table in found["tables"]:
        assert f"{table['title']}" in done.stdout.replace("\n", " ")
        for row in table["rows"]:
            assert row["figures"], row
            assert all(figure > 0 for figure in row["figures"]), row


def test_unknown_bench_is_refused_by_name() -> None:
    """The error for an unknown benchmark has its name."""
    done = bench("--small", "speed")
    assert done.returncode == 2
    assert "no such bench: speed" in done.stderr


def test_failed_bench_is_recorded_and_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a benchmark fails, the JSON lists it, and the exit code is 1."""
    monkeypatch.setitem(BENCHES, "world", ((), ("no number",)))
    monkeypatch.setattr(sys, "argv", ["bench", "--small", "--json", str(tmp_path / "f"), "world"])
    from bench.__main__ import main

    assert main() == 1
    assert json.loads((tmp_path / "f").read_text())["failed"] == ["world"]


def row(name: str, seconds: float) -> dict[str, Any]:
    """Return a row of the results in the JSON."""
    return {"name": name, "unit": "ms", "bar": None, "figures": [seconds]}


def test_growth_is_drawn_on_logarithmic_axes() -> None:
    """Both axes of the drawing of growth are logarithmic.

    Ten times the containers and ten times the time are steps of equal length.
    """
    rows = [row("10 started", 0.1), row("100 started", 1.0), row("1000 started", 10.0)]
    drawn = ElementTree.fromstring(growth([{"title": "Growth: …", "rows": rows}]))
    (line,) = drawn.iter("{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    steps = [(b[0] - a[0], a[1] - b[1]) for a, b in pairwise(points)]
    assert steps[0] == pytest.approx(steps[1], abs=0.2)
    assert steps[0][0] > 0
    assert steps[0][1] > 0


def test_labels_of_lines_at_one_height_do_not_overlap() -> None:
    """The labels of lines that end at the same height are at least one font size apart."""
    rows = [row(f"1000 {what}", 10.0) for what in ("started", "full mesh", "removed")]
    drawn = ElementTree.fromstring(growth([{"title": "Growth: …", "rows": rows}]))
    labels = [
        float(text.attrib["y"])
        for text in drawn.iter("{http://www.w3.org/2000/svg}text")
        if "".join(text.itertext()) in ("started", "full mesh", "removed")
    ]
    assert all(below - above >= 13 for above, below in pairwise(sorted(labels)))  # the font's size
    assert len(labels) == 3


FOUND: dict[str, Any] = {
    "machine": {
        "processor": "<b>Some</b>", "processors": 2, "memory_gb": 24,
        "kernel": "6.1", "python": "3.13", "load": 0.5,
    },
    "failed": ["world"],
    "tables": [
        {
            "title": "A start",
            "against": "C",
            "rows": [
                row("C", 0.002),
                {**row("late", 0.008), "bar": 0.003},
                {**row("early", 0.001), "bar": 0.003},
            ],
        },
        {"title": "Growth: …", "against": None, "rows": [row("10 started", 1.0)]},
    ],
}  # fmt: skip


def test_bench_page_compares_medians_with_limits() -> None:
    """A row with a limit is kept if its median does not exceed the limit.

    Ratios are relative to the row that the table names.
    """
    page = render(FOUND)
    assert "bench.world failed" in page
    assert "&lt;b&gt;Some&lt;/b&gt;" in page
    lines = {
        cells[0]: cells[1:]
        for cells in (
            [re.sub("<.*?>", "", cell).strip() for cell in re.findall("<t[hd].*?</t[hd]>", line)]
            for line in page.splitlines()
            if line.startswith("<tr")
        )
    }
    assert lines["late"][4:6] == ["≤ 3.0 not kept", "4.00"]
    assert lines["early"][4:6] == ["≤ 3.0 kept", "0.50"]
    assert lines["C"][4:6] == ["", "1.00"]


def test_bench_page_policy_admits_only_its_own_styles() -> None:
    """The page's Content-Security-Policy admits only the styles of the page and its drawing."""
    page = render(FOUND)
    admitted = re.findall(r"'sha256-([^']+)'", page)
    styles = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    hashed = [b64encode(sha256(style.encode()).digest()).decode() for style in styles]
    assert admitted == hashed
    assert len(hashed) == 2
    assert "style=" not in page


def test_bench_page_without_growth_has_no_growth_drawing() -> None:
    """Without a table of growth, the page has no drawing of growth.

    Its Content-Security-Policy then omits the style of the drawing.
    """
    page = render({**FOUND, "tables": FOUND["tables"][:1]})
    assert "How it grows" not in page
    assert len(re.findall("'sha256-", page)) == 1
