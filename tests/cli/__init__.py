"""Tests of the `netmodes` command."""
