"""The scene of the DNS suites: as much of it as a runtime can build."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.model.features import Feature, of_plan
from suites.dns.conftest import plan


@given(claimed=st.frozensets(st.sampled_from(Feature)))
def test_dns_scene_requires_only_claimed_features(claimed: frozenset[Feature]) -> None:
    """But for the default network, which every DNS test is about."""
    assert set(of_plan(plan(claimed), claimed)) - claimed <= {Feature.BRIDGE}
