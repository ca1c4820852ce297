"""The pytest plugin, seen by small projects that are run with it."""
