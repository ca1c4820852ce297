"""Tests of the sandbox from outside."""
