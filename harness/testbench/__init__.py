"""Instruments for tests of container networking, such as scenes, sockets and DNS lookups.

A scene has the networks and containers of a test. Other instruments transfer data, capture packets
and attach containers by hand.
"""

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
