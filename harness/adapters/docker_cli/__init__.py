"""Runtimes with a Docker-compatible command line."""

__all__ = ["adapter", "spec", "toml_spec"]
