"""Tests of harness, runtime and linux themselves."""
