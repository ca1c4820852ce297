"""Tests of the sandbox, which are run outside of it."""
