"""Tests of `linux`.

The effects of its requests are read back by pyroute2, and observed in packets.
"""
