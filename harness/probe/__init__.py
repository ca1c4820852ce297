"""Probes that observe the outcome of each cell of a matrix."""

__all__ = ["icmp", "prober", "quiescence", "remote", "resolver", "results", "sockets"]
