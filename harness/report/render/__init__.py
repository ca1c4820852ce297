"""One module per output format of a report."""

__all__ = ["html", "junit", "markdown", "terminal"]
