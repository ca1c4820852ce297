"""One driver per container runtime."""

__all__ = ["dialects", "docker_cli", "mydocker", "protocol", "registry", "support"]
