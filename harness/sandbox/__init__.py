"""The private namespaces a whole run lives in, and what this machine can do."""

__all__ = ["cgroup", "doctor", "namespaces", "sandbox"]
