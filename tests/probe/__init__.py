"""Tests of the probe, which returns an observation for each cell or raises an error."""
