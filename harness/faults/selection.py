"""Selection of the adapter under test, with the fault of `--fault` if given."""

from __future__ import annotations

from typing import Final

import pytest

from harness.adapters import registry
from harness.adapters.protocol import AdapterFactory
from harness.faults.adapter import FaultyAdapter, FaultyFactory
from harness.faults.fault import Fault

FAULT: Final = pytest.StashKey[Fault]()
"""The fault of the run, if any."""

SABOTAGED: Final = pytest.StashKey[list[FaultyAdapter]]()
"""The adapters of the run that have the fault."""


def runtime_name(config: pytest.Config) -> str:
    """Return the name of the runtime under test."""
    return config.getoption("runtime") or registry.DEFAULT


def factory(config: pytest.Config) -> AdapterFactory:
    """Return the adapter factory of the runtime under test."""
    healthy = registry.find(runtime_name(config))
    fault = config.stash.get(FAULT, None)
    if fault is None:
        return healthy
    return FaultyFactory(healthy, fault, config.stash.setdefault(SABOTAGED, []))
