"""How to find out what happens in a cell."""
