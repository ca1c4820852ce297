"""Suites about name resolution inside containers, and the hosts, hostname and resolv.conf files.

The constants name networks and aliases of the shared scene.
"""

LAN, DMZ, FOUR, CLOSED, VAULT = "lan", "dmz", "four", "closed", "vault"
ALIAS, SHARED, NEIGHBOUR = "front", "shared", "neighbour"
LONG = "long" * 15 + "est"
"""Longest label: 63 octets (RFC 1035, 2.3.4)."""
