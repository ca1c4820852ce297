"""Probes that observe the outcome of each cell of a matrix."""

__all__ = ["icmp", "payload", "prober", "quiescence", "remote", "resolver", "results", "sockets"]
