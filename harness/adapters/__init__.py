"""One driver per container runtime."""

__all__ = ["dialects", "mydocker", "protocol", "registry"]
