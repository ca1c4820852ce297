"""Tests of the lab as users and scripts run it, and of its leftovers."""
