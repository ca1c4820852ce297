"""Deliberate sabotage of a healthy runtime: a test of each violated requirement must fail."""
