"""Deliberate faults of a healthy runtime: a test of each violated requirement must fail."""

__all__ = ["adapter", "fault", "helpers", "nft_rules", "selection", "target", "trials", "verdicts"]
