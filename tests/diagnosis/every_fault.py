"""Every fault that makes packets go astray: the story names the place where it is.

Takes a minute, and is collected where it is named only: `tox -e autopsy`. `test_faults` tries
one of each kind in every run; `python -m bench.autopsy` tells the share.
"""

from __future__ import annotations

import re

import pytest

from bench.autopsy import PLACES, stories

RACES = {"container-answers-for-everybody"}
"""Where it is chance whether a cell is wrong: who answers an ARP request first."""


@pytest.mark.parametrize("fault", PLACES)
def test_the_story_names_the_place(fault: str) -> None:
    """Of a fault that shows in a matrix of ten containers, in one of three stories."""
    told = stories(fault)
    assert re.search(PLACES[fault], told) or (fault in RACES and not told), told
