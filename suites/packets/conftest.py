"""Fixtures of the suites about single packets."""

from __future__ import annotations

from suites.support.three_containers import trio

__all__ = ["trio"]
