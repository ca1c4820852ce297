"""One file per bare runtime."""
