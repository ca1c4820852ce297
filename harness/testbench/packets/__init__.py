"""Capturing, matching and crafting packets."""

__all__ = ["capture", "craft", "expect", "offload", "packet_ring", "pcapng"]
