"""Runtimes that only start processes in namespaces, on networks of CNI or of Linux bridges."""

__all__ = ["adapter", "bundle", "linux_bridge", "protocol", "store"]
