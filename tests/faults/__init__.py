"""Sabotage, and what is made of it."""
