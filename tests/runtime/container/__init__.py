"""Tests of runtime/container: the life cycle of one container."""
