"""State of the kernel and the processes of a namespace: recording and comparison."""

__all__ = ["describe", "netlink_dump", "processes", "snapshot"]
