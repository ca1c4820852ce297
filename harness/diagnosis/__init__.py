"""Diagnosis of a failed cell: replay with captures and traces, explanation and evidence."""

__all__ = ["evidence", "replay"]
