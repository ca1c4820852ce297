"""Drivers of container runtimes, and the protocol that they implement."""

__all__ = ["dialects", "mydocker", "protocol", "registry"]
