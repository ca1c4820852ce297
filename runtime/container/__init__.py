"""A container seen from outside: options, start, exec, stop, remove, logs, its networking."""
