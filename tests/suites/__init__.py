"""Tests of the parts that the suites are built from."""
