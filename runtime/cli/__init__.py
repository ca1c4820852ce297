"""The `mydocker` command: each command is one function with its options beside it."""

__all__ = ["main"]
