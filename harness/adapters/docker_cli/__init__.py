"""Runtimes with a Docker-compatible command line."""
