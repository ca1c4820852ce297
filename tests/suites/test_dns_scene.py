"""The scene of the suites about names: as much of it as a runtime can build."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.model.features import Feature, of_plan
from suites.dns.conftest import plan


@given(claimed=st.frozensets(st.sampled_from(Feature)))
def test_of_the_town_nobody_asks_for_what_is_not_claimed(claimed: frozenset[Feature]) -> None:
    """But for the default network, which every test of names is about."""
    assert set(of_plan(plan(claimed), claimed)) - claimed <= {Feature.BRIDGE}
