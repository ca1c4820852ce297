"""Tests of the probe, which observes each cell or raises an error."""
