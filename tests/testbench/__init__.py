"""Tests of harness/testbench, the tools of the suites: scenes, listeners, captures, transfers.

A scene is the networks and containers of a test.
"""
