"""The `mydocker` program: each of its commands is a function, decorated with its options."""

__all__ = ["main"]
