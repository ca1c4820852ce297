"""One module per output format of a report, and one for the pages of the findings."""

__all__ = ["finding_pages", "html", "junit", "markdown", "terminal"]
