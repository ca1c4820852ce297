"""Tests of the exceptions of the adapter protocol."""

from __future__ import annotations

import pickle

from harness.adapters.protocol import RuntimeRefused


def test_refusal_can_be_pickled() -> None:
    """A pickled refusal keeps the request and the runtime's message."""
    there = pickle.loads(pickle.dumps(RuntimeRefused("run a", "no")))
    assert (there.asked, there.said, str(there)) == ("run a", "no", "run a: no")
