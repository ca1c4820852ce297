"""Tests of faults, and of trials, which run the suites against a fault."""
