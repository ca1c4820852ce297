"""How to find out: the pytest plugin `netmodes` and everything under it."""
