"""Tests of the command `netmodes`."""
