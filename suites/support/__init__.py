"""Helpers that several suites share, and scenes: the networks and containers of a test."""
