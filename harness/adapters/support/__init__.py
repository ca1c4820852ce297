"""Support for the drivers: programs, daemons, rootless users, caches, logs."""
