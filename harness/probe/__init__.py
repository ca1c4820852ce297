"""Probes that observe the outcome of each cell of a matrix."""

__all__ = ["icmp", "prober", "quiescence", "reception", "remote", "resolver", "sockets"]
