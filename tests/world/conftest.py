"""Fixtures of the tests of the world's parts."""

from __future__ import annotations

from tests.world.hosts import doomed, host
from tests.world.serving import client, namespaces, places, services

__all__ = ["client", "doomed", "host", "namespaces", "places", "services"]
