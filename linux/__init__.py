"""Access to the Linux kernel for runtime and harness: system calls and netlink.

The package imports only the standard library, neither runtime nor harness, and keeps no state.
docs/decisions/0002-one-package-for-the-kernel.md has measurements that compare it with pyroute2.
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
