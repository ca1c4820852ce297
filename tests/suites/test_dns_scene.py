"""Tests of the scene of the DNS suites, which has the parts that a runtime can build."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.model.features import Feature, of_plan
from suites.dns.conftest import plan


@given(claimed=st.frozensets(st.sampled_from(Feature)))
def test_dns_scene_requires_only_claimed_features(claimed: frozenset[Feature]) -> None:
    """The DNS scene requires only claimed features, and the default network.

    Every DNS test is about the default network.
    """
    assert set(of_plan(plan(claimed), claimed)) - claimed <= {Feature.BRIDGE}
