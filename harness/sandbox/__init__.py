"""The private namespaces of a whole run, and the checks of what this machine can do."""

__all__ = ["cgroup", "doctor", "namespaces", "sandbox"]
