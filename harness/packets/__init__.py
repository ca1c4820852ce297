"""What really goes over the wires: captured, matched, kept as evidence."""
