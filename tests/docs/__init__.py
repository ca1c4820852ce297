"""Tests of the documentation: its commands run, and its examples are true."""
