"""The sandbox, that is, private namespaces for a whole run, and checks of the machine."""

__all__ = ["cgroup", "doctor", "namespaces", "sandbox"]
