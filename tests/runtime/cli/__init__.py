"""Tests of the mydocker command."""
