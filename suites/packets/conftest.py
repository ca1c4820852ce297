"""Fixtures of the packet suites."""

from __future__ import annotations

from suites.support.three_containers import trio

__all__ = ["trio"]
