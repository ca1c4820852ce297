"""Test that README.md shows the current output."""

from __future__ import annotations

from harness.model import oracle
from harness.model.dialect import Dialect
from harness.model.plan import CAST
from harness.model.topology import Topology
from harness.report.render.terminal import render
from tests.support.programs import ROOT


def test_readme_matrix_is_promised_by_the_oracle() -> None:
    """The lines of the README's matrix are those that the oracle promises, in the same order.

    The README may omit lines.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = (block for block in text.split("```")[1::2] if "container01" in block)
    drawn = iter(render(oracle.promised(CAST, Dialect(), Topology()), width=80).splitlines())
    for line in shown.strip("\n").splitlines():
        assert line.strip() == "…" or line in drawn, line
