"""User-defined networks: isolated from each other, from the default network, and from outside."""
