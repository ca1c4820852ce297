"""How to find out what happens in a cell."""

__all__ = ["icmp", "payload", "prober", "quiescence", "remote", "resolver", "results", "sockets"]
