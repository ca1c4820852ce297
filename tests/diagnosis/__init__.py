"""Tests of harness/diagnosis: the explanation of failed cells."""
