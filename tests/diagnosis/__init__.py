"""Tests of harness/diagnosis: how a failed cell is explained."""
