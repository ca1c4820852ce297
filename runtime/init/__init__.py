"""Code that runs inside the new container: rootfs, mounts, security, pid 1."""

__all__ = [
    "fork_server",
    "init",
    "process",
    "rootfs",
    "seccomp",
    "security",
    "status_pipe",
    "supervise",
    "terminal",
]
