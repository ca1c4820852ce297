"""Drivers of bare runtimes, one file for each runtime."""

__all__ = ["runsc"]
