"""What is asked of the kernel, read back by somebody else and seen in packets."""
