"""Instruments of tests: scenes, containers, sockets, transfers, name resolution."""

__all__ = [
    "attach",
    "client",
    "concurrent",
    "container",
    "listener",
    "lookup",
    "netns_view",
    "packets",
    "profiles",
    "scene",
    "steps",
    "strategies",
    "transfer",
]
