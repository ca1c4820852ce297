"""One module per output format of a report, and the pages of findings and upstream bugs."""

__all__ = ["coverage_page", "finding_pages", "html", "junit", "markdown", "terminal"]
