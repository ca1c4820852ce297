"""Tests of harness/model: plans, matrices, dialects and the oracle, without a network."""
