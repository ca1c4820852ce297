"""The built-in faults, one module for each part of the runtime that they break."""

__all__ = []
