"""Scenes and helpers that several suites share."""
