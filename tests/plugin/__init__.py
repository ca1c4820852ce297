"""Tests of the pytest plugin, with small projects that are run with it."""
