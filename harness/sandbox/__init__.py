"""The private namespaces of a whole run, and the checks of the machine."""

__all__ = ["cgroup", "doctor", "namespaces", "sandbox"]
