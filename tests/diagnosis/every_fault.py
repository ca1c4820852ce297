"""Test that the diagnosis names the place of every fault that misroutes or drops packets.

The test takes a minute, and is collected only if named: `tox -e autopsy`. `python -m bench.autopsy`
prints the share of faults whose place is named.
"""

from __future__ import annotations

import re

import pytest

from bench.autopsy import PLACES, stories

RACES = {"container-answers-for-everybody"}
"""Faults that make a cell wrong by chance, because two hosts race to reply to an ARP request."""


@pytest.mark.parametrize("fault", PLACES)
def test_explanation_names_the_place_of_every_fault(fault: str) -> None:
    """At least one of the first three explanations names the place of the fault.

    The wrong cells are from a matrix of ten containers.
    """
    found = stories(fault)
    assert re.search(PLACES[fault], found) or (fault in RACES and not found), found
