"""Kernel and process state of a namespace, taken and compared."""

__all__ = ["describe", "netlink_dump", "processes", "snapshot"]
