"""Helpers of the tests of runtime: inspection, and processes that are killed."""
