"""Tests of harness/testbench: scenes, listeners, captures and transfers."""
