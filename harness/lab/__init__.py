"""`netmodes lab`: a shell on the world's host, with a runtime and its containers running."""

__all__ = ["ping", "session", "shell", "terminal"]
