"""Kernel and process state of a namespace, taken and compared."""
