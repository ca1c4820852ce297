"""Tests of the pytest plugin, which run small projects with it."""
