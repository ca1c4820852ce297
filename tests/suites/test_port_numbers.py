"""Tests of the ports of the suites' listeners and clients."""

from __future__ import annotations

import re

from tests.support.programs import ROOT

GIVEN = range(32768, 61000)
"""The kernel's ephemeral ports: ip_local_port_range, its default (ip(7))."""


def test_fixed_ports_are_not_ephemeral() -> None:
    """The suites' fixed ports are not ephemeral ones.

    A resolver of the runtime's own may listen on such a port, once in some hundred runs.
    """
    taken = {
        f"{path.name}: {number}"
        for path in (ROOT / "suites").rglob("*.py")
        for number in re.findall(r"(?<!\w)\d{5}(?!\w)", path.read_text())
        if int(number) in GIVEN
    }
    assert not taken
