"""Test that `docs/four-modes.md` shows the lab's current output."""

from __future__ import annotations

import pytest

from tests.docs.transcript import REGENERATE, WITHIN, differences, perform, read, steps
from tests.lab.labs import TOOLS


@pytest.mark.timeout(WITHIN + 10)
@pytest.mark.parametrize("tools", TOOLS)
def test_four_modes_page_shows_the_real_output(tools: str) -> None:
    """Every command on the page prints the output on the page.

    This holds with and without iproute2.
    """
    page = read()
    outputs = perform([step.command for step in steps(page)], setting=TOOLS[tools])
    found = differences(page, outputs)
    if found:
        message = f"docs/four-modes.md is stale; if the output is right: {REGENERATE}\n\n{found}"
        pytest.fail(message, pytrace=False)
