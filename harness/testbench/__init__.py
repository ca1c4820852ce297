"""Instruments of tests: scenes, containers, sockets, transfers, name resolution."""

__all__ = [
    "attach",
    "client",
    "concurrent",
    "container",
    "listener",
    "lookup",
    "netns_view",
    "profiles",
    "scene",
    "strategies",
    "transfer",
]
