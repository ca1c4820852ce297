"""Helpers that are shared by the folders of tests."""
