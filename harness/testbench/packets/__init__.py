"""Tools to capture packets, match them with templates, and craft packets to send."""

__all__ = ["capture", "craft", "expect", "offload", "packet_ring", "pcapng"]
