"""Deprecated: import from `harness.faults.fault`."""

from __future__ import annotations

from harness import moved

__getattr__ = moved(
    __name__,
    {
        "Fault": "harness.faults.fault",
        "FaultError": "harness.faults.fault",
        "Moment": "harness.faults.fault",
        "PLUGGED": "harness.faults.fault",
        "RULES": "harness.faults.fault",
        "UnknownFault": "harness.faults.fault",
        "collect": "harness.faults.fault",
        "fault": "harness.faults.fault",
        "Faults": "harness.faults.fault:FaultCatalogue",
    },
)
