"""Tests of the lab from outside: its use by people and scripts, and its leftovers."""
