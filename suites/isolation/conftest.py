"""Helpers of the isolation suites."""

from __future__ import annotations

from typing import Any

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.plan import NetworkSpec
from harness.testbench.netns_view import NetnsView
from suites.support.host import await_local_addresses


def assert_network_refused(runtime: Adapter, host: NetnsView, **options: Any) -> None:
    """Assert that a network is refused, and that the runtime and the host keep nothing of it."""
    await_local_addresses(host)
    before = host.snapshot()
    try:
        made = runtime.network(NetworkSpec("refused", **options))
    except RuntimeRefused:
        pass
    else:
        runtime.remove_network("refused")
        raise AssertionError(f"the runtime created a network with {options}: {made}")
    changes = before.changes(host.snapshot())
    assert not changes, "; ".join(changes)
    with pytest.raises(RuntimeRefused):
        runtime.network_facts("refused")
