"""Adapters that are described: what the description says, and what becomes of it."""
