"""What the packet suites share."""

from __future__ import annotations

from suites.trio import trio

__all__ = ["trio"]
