"""Tests of harness/diagnosis, which explains failed cells."""
