"""`netmodes lab`: a shell on the host of a world in which a runtime and its containers run."""

__all__ = ["ping", "session", "shell", "terminal"]
