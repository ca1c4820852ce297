"""Tests of what the suites themselves are built from."""
