"""Runtimes that only start processes in namespaces; networks by CNI or a Linux bridge."""

__all__ = ["adapter", "bundle", "linux_bridge", "protocol", "store"]
