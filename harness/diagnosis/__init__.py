"""Explain a failed cell: replay it with captures and traces, and write the evidence."""

__all__ = ["evidence", "replay"]
