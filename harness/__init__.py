"""A pytest plugin that checks whether a container runtime networks as it promises."""

__version__ = "0.1.0"
