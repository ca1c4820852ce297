"""The sandbox keeps what it promises, seen from outside."""
