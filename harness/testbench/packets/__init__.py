"""Capture, match and craft packets."""
