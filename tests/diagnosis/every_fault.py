"""Tests of every fault that misroutes or drops packets: the story names its place.

The test takes a minute, and is collected only if named: `tox -e autopsy`. `python -m bench.autopsy`
prints the share.
"""

from __future__ import annotations

import re

import pytest

from bench.autopsy import PLACES, stories

RACES = {"container-answers-for-everybody"}
"""Faults that make a cell wrong by chance: two hosts race to answer an ARP request."""


@pytest.mark.parametrize("fault", PLACES)
def test_story_names_the_place_of_every_fault(fault: str) -> None:
    """One of three stories of a matrix of ten containers names the place of each fault."""
    found = stories(fault)
    assert re.search(PLACES[fault], found) or (fault in RACES and not found), found
