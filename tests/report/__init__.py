"""Tests of reports, gate and shards."""
