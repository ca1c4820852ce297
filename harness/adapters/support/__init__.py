"""What drivers share: programs, daemons, rootless users, caches, logs."""
