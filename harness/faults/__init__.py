"""Deliberate sabotage of a healthy runtime: each fault must be caught by a test of its row."""
