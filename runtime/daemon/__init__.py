"""The only daemon of mydocker: DNS for user-defined networks, and a relay for ports on ::1."""

__all__ = ["client", "daemon", "dns_socket"]
