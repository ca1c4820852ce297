"""The sandbox, a set of private namespaces for a whole run, and the checks of the machine."""

__all__ = ["cgroup", "doctor", "namespaces", "sandbox"]
