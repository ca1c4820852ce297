"""What the packet suites share."""

from __future__ import annotations

from suites.trio import family, trio

__all__ = ["family", "trio"]
