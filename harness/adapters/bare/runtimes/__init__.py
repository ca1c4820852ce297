"""One file per bare runtime."""

__all__ = ["runsc"]
