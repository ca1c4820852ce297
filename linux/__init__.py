"""Interfaces of the Linux kernel that runtime and harness share: system calls and netlink.

The package imports only the standard library, does not depend on its users, and keeps no state.
docs/decisions/0002-one-package-for-the-kernel.md compares it with pyroute2, in figures.
"""

__all__ = [
    "conntrack",
    "netlink",
    "netns",
    "nft_trace",
    "nftables",
    "proc",
    "readiness",
    "rtnetlink",
    "rtnetlink_dump",
    "syscalls",
]
