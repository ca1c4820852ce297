"""Support for the drivers: programs, daemons, rootless users, caches, logs."""

__all__ = ["programs", "rootless"]
