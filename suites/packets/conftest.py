"""What the packet suites share."""

from __future__ import annotations

from suites.support.three_containers import trio

__all__ = ["trio"]
