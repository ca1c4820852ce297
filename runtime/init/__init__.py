"""Code that runs inside the new container: rootfs, mounts, security, pid 1."""
