"""The built-in faults, by what they break."""

__all__ = []
