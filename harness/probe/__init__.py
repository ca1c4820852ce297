"""Probes that observe the outcome of each cell of the matrix with real packets."""

__all__ = ["icmp", "prober", "quiescence", "reception", "remote", "resolver", "sockets"]
