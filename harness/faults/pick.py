"""Which runtime a run is about: the one that is asked for, with its fault if there is one."""

from __future__ import annotations

from typing import Final

import pytest

from harness.adapters import registry
from harness.adapters.protocol import AdapterFactory
from harness.faults.catalogue import Fault
from harness.faults.sabotage import Sabotaged, SabotagedFactory

FAULT: Final = pytest.StashKey[Fault]()
"""The fault of the run, where there is one."""
SABOTAGED: Final = pytest.StashKey[list[Sabotaged]]()
"""The adapters of the run that have the fault."""


def runtime_name(config: pytest.Config) -> str:
    """The name of the runtime under test."""
    return config.getoption("runtime") or registry.DEFAULT


def factory(config: pytest.Config) -> AdapterFactory:
    """What makes the adapter of the runtime under test in a host."""
    healthy = registry.find(runtime_name(config))
    fault = config.stash.get(FAULT, None)
    if fault is None:
        return healthy
    return SabotagedFactory(healthy, fault, config.stash.setdefault(SABOTAGED, []))
