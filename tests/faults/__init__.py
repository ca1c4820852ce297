"""Tests of faults and their trials."""
