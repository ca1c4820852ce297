"""Tests of the lab as users and scripts run it, and of the machine's state after the lab."""
