"""Tests of the autopsy: each end built on purpose, and the story that is told of it."""
