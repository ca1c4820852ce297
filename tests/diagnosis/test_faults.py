"""Tests of the explanations for one fault of each kind.

`every_fault` tests all faults.
"""

from __future__ import annotations

import re

import pytest

from bench.autopsy import PLACES, stories

ONE_OF_EACH_KIND = (
    "no-masquerade",
    "gateway-is-deaf-to-pings",
    "internet-is-out-of-reach",
    "host-cannot-connect-in",
    "peers-lose-datagrams",
    "networks-are-not-isolated",
    "loopback-down",
    "host-end-down",
    "peers-are-isolated",
    "narrow-prefix",
    "address-given-twice",
    "no-default-route",
)


@pytest.mark.parametrize("fault", ONE_OF_EACH_KIND)
def test_explanation_names_the_place_of_the_fault(fault: str) -> None:
    """At least one of the first three explanations names the place of the fault.

    The wrong cells are from a matrix of ten containers.
    """
    assert re.search(PLACES[fault], stories(fault))
