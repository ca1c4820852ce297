"""Suites about the start and end of containers, which must leave no state behind."""
