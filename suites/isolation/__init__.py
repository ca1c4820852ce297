"""Suites about the isolation, addresses and settings of user-defined networks."""
