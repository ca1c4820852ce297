"""The ports at which the suites listen, and from which they call."""

from __future__ import annotations

import re

from tests.support.programs import ROOT

GIVEN = range(32768, 61000)
"""What the kernel gives to who asks for none: ip_local_port_range, as it comes (ip(7))."""


def test_none_is_one_that_the_kernel_gives_away() -> None:
    """A resolver of the runtime's own may listen there already, once in some hundred runs."""
    taken = {
        f"{path.name}: {number}"
        for path in (ROOT / "suites").rglob("*.py")
        for number in re.findall(r"(?<!\w)\d{5}(?!\w)", path.read_text())
        if int(number) in GIVEN
    }
    assert not taken
