"""The one helper process: DNS for user-defined networks, relay for ports on ::1."""

__all__ = ["client", "daemon", "dns_socket"]
