"""Explain a failed cell: replay it with captures and traces, write the evidence."""
