"""Tests of the documentation: its commands are run, and its examples are checked."""
