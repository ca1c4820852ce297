"""The closed world: namespaces and links, the machine in the middle, what answers."""
